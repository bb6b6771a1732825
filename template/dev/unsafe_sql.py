# Rung's file: advancing to another stage may change it.
"""Forms of SQL that harm a running service and that Squawk does not know.

docs/runbooks/schema-changes.md has the safe form of each. `-- squawk-ignore` works for these too.
"""

import re
from collections.abc import Iterator

KIND = r"(?:\w+ )??(?:TABLE|VIEW|SEQUENCE|FUNCTION|PROCEDURE|TYPE|DOMAIN|SCHEMA)"
NAME = r"(?:ONLY )?[\w.]++(?:\[\S*\])?+"
# The tables and the like of a statement. If the migration makes all of them, nobody waits for them.
NAMES = rf"(?P<names>{NAME}(?: ?, ?{NAME})*+)"
ALTER = rf"ALTER (?:TABLE|INDEX|MATERIALIZED VIEW) (?:IF EXISTS )?{NAMES}.*?"
# Alembic knows its own row by version_num.
ONE_ROW = (
    r"(?:(?: SET VERSION_NUM='\w*')? WHERE [\w.]+\.VERSION_NUM"
    r"|(?:(?! FROM | USING ).)* WHERE (?:\w+\.)*_?ID_?)"
    r" ?(?:=(?! ?[A-Z_\[])|IN ?\[(?!_?[A-Z]))(?!.* OR )"
)
UP_TO_3_S = r"'?(?:(?:3000|(?!0)[12]?\d{1,3})(?:MS)?|[1-3]S)'?$"
# The harm, then patterns. Each matches the beginning of a statement as _statements() writes it.
RULES = {
    "rewrites-the-table": (
        "It copies the whole table, and nobody may use the table meanwhile.",
        rf"{ALTER} SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD|EXPRESSION)\b",
        r"(?:CLUSTER|REPACK)\b",
        r"VACUUM (?:FULL\b|\[\S*FULL)",
    ),
    "locks-the-table": (
        "Nobody else may use the table until the migration ends.",
        rf"(?:LOCK|TRUNCATE)(?: TABLE)? {NAMES}",
        rf"REFRESH MATERIALIZED VIEW (?!CONCURRENTLY){NAMES}",
        rf"ALTER TABLE .* ATTACH PARTITION {NAMES}",
        rf"{ALTER} ADD (?!CONSTRAINT|CHECK)[^,]*\bCHECK ?\[",
        r"ALTER DOMAIN .* SET NOT NULL",
    ),
    "changes-rows": (
        "Others wait for each row that it changes until the migration ends.",
        rf"(?:WITH .*\] ?)?(?:UPDATE|DELETE FROM|MERGE INTO) {NAMES}(?!{ONE_ROW})",
    ),
    "breaks-the-old-version": (
        "The version of the app that runs may still use it.",
        rf"{ALTER} (?:ENABLE|FORCE) ROW LEVEL SECURITY",
        rf"{ALTER} ADD [^,]*(?:NOT NULL DEFAULT NULL|DEFAULT NULL NOT NULL)\b",
        rf"ALTER {KIND} (?:IF EXISTS )?{NAMES} OWNER TO",
        rf"REVOKE\b(?:.*? ON (?:\w+ )?{NAMES} FROM)?",
        r"DROP (?:OWNED|ROLE|USER)\b",
    ),
    "changes-the-lock-timeout": (
        "Everybody else queues behind a migration that waits longer for its lock.",
        rf"SET (?:LOCAL |SESSION )?LOCK_TIMEOUT\b(?! ?(?:=|TO) ?{UP_TO_3_S})",
        r"RESET (?:LOCK_TIMEOUT|ALL)\b|SELECT .*SET_CONFIG ?\[_?'LOCK_TIMEOUT'",
    ),
    "hides-statements": (
        "The lint does not read the statements in it.",
        r"CALL\b",
        r"SELECT (?:\* FROM )?(?P<called>[\w.]+) ?\[",
        r"DO .*(?:;|BEGIN|THEN|ELSE|LOOP) ?(?:WITH [^;]*\] ?)?(?:ALTER|DROP|TRUNCATE|UPDATE|DELETE"
        r"|MERGE|EXECUTE|LOCK|CREATE (?:UNIQUE )?INDEX|REINDEX|REFRESH|CALL)\b",
    ),
}
# Comments and functions, names and strings.
UNREAD = re.compile(
    r"--[^\n]*|/\*.*?\*/|(?P<dollar>\$\w*\$).*?(?P=dollar)|\bBEGIN\s+ATOMIC\b(?:\s+|.*?;\s*)END\b"
    r"""|"(?:[^"]|"")*"|'(?:[^']|'')*'""",
    re.DOTALL | re.IGNORECASE,
)
IGNORED = re.compile(r"-- *squawk-ignore ([^;\n]*);?\s*")
# A comment for Squawk, and its statement.
ACCEPTED = re.compile(
    rf"((?:-- squawk-ignore [^\n]*\n)+)((?:{UNREAD.pattern}|[^;])*+)", UNREAD.flags
)
NEW_VIEW = re.compile(r"CREATE MATERIALIZED VIEW (?!IF )(\S+)")
NEW = re.compile(rf"CREATE (?:OR REPLACE )?{KIND} (?!IF NOT EXISTS )([\w.]+)")


def found(sql: str) -> Iterator[tuple[str, str, str]]:
    """The rule, the statement and the harm of each unsafe form."""
    made: set[str] = set()
    for raw, statements in _statements(sql):
        if new := NEW.match(statements[0]):
            made.add(new[1])
        ignored = re.findall(r"[\w-]+", " ".join(IGNORED.findall(raw)))
        for rule, (harm, *forms) in RULES.items():
            matches = [re.match(form, one) for form in forms for one in statements]
            if rule not in ignored and any(one and _counts(one, made) for one in matches):
                yield rule, _shown(raw), harm


def for_squawk(sql: str) -> str:
    """Drops names of our own rules from comments, and switches one rule of style off. Squawk does
    not notice that a migration makes the materialized view of an index. It reads a comment only
    for the next line, and a CREATE TABLE has a line for each column."""

    def others(ignored: re.Match[str]) -> str:
        names = [name for name in re.findall(r"[\w-]+", ignored[1]) if name not in RULES]
        return f"-- squawk-ignore {', '.join(names)}\n" if names else "\n"

    def on_new_view(index: re.Match[str]) -> str:
        return f"-- squawk-ignore require-concurrent-index-creation\n{index[0]}"

    def on_each_line(accepted: re.Match[str]) -> str:
        names = re.findall(r"squawk-ignore ([^\n]*)", accepted[1])
        comment = f"-- squawk-ignore {', '.join(names)}\n"
        return comment + accepted[2].rstrip().replace("\n", f"\n{comment}")

    sql = ACCEPTED.sub(on_each_line, IGNORED.sub(others, sql))
    for name in NEW_VIEW.findall(sql):
        sql = re.sub(rf"\bCREATE (?:UNIQUE )?INDEX \w+ ON {re.escape(name)}\b", on_new_view, sql)
    return f"-- squawk-ignore-file require-enum-value-ordering\n{sql}"


def _counts(match: re.Match[str], made: set[str]) -> bool:
    """Of the functions that a SELECT calls, only those that the migration makes: others are
    usually Postgres' own."""
    called = match.groupdict().get("called")
    return called in made if called else not _names(match) <= made


def _names(match: re.Match[str]) -> set[str]:
    names = match.groupdict().get("names") or "unnamed"
    return {name.strip().removeprefix("ONLY ").split("[")[0] for name in names.split(",")}


def _statements(sql: str) -> Iterator[tuple[str, list[str]]]:
    """Each statement as written, and in capitals, without comments, a string as one word."""
    # Skip the limits that Alembic sets before BEGIN.
    sql = sql[max(sql.find("BEGIN;"), 0) :]
    for one in re.finditer(r"[^;]+", UNREAD.sub(_word, sql)):
        raw = sql[slice(*one.span())]
        statement = " ".join(one[0].upper().split())
        if re.match(r"DO\b", statement):
            statement += " " + " ".join(_body(raw).upper().split())
        yield raw, _flat(statement)


def _word(token: re.Match[str]) -> str:
    quoted = token[0][0] in "\"'"
    return re.sub(r"[^\w']", "_", token[0]) if quoted else " " * len(token[0])


def _flat(statement: str) -> list[str]:
    """The statement with [a__b] for (a, b), and each change of rows in parentheses (WITH)."""
    within: list[str] = []

    def word(inner: re.Match[str]) -> str:
        if re.match(r" ?(?:UPDATE|DELETE|MERGE) ", inner[1]):
            within.append(inner[1].strip())
        return f"[{re.sub('[ ,]', '_', inner[1])}]"

    while (shorter := re.sub(r"\(([^()]*)\)", word, statement)) != statement:
        statement = shorter
    return [statement, *within]


def _body(do: str) -> str:
    """The body of a DO block, without the functions that it defines."""
    bodies = [token[0] for token in UNREAD.finditer(do) if token[0][0] in "$'"]
    within = [re.sub(r"^(?:\$\w*\$|')|(?:\$\w*\$|')$", "", body) for body in bodies]
    return " ".join(UNREAD.sub(_word, body) for body in within)


def _shown(raw: str) -> str:
    code = re.sub(r"--[^\n]*|/\*.*?\*/", " ", raw, flags=re.DOTALL)
    return " ".join(code.split())[:100]
