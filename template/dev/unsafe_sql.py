# Rung's file: advancing to another stage may change it.
"""Forms of SQL that harm a running service and that Squawk does not know.

docs/runbooks/schema-changes.md has the safe form of each. `-- squawk-ignore` works for these too.
"""

import re
from collections.abc import Iterator

TABLE = r"(?:ONLY )?(?P<table>[\w.\"]+)"
ALTER = rf"ALTER (?:TABLE|INDEX|MATERIALIZED VIEW) (?:IF EXISTS )?{TABLE}.*?"
ONE_ROW = r"(?:[\w.\"]+\.)?\"?ID\"? ?(?:=(?! ?[A-Z_(\"])|IN \((?!SELECT))"
# Each matches from the beginning of a statement, without comments and strings, in capitals.
RULES = {
    "rewrites-the-table": (
        "It copies the whole table, and nobody may use the table meanwhile.",
        rf"{ALTER} SET (?:LOGGED|UNLOGGED|TABLESPACE|ACCESS METHOD|EXPRESSION)\b",
        r"(?:CLUSTER|REPACK)\b",
        r"VACUUM (?:\([^)]*)?FULL\b",
    ),
    "locks-the-table": (
        "It keeps others from the table until the migration ends.",
        rf"(?:LOCK|TRUNCATE)(?: TABLE)? {TABLE}",
        r"REFRESH MATERIALIZED VIEW (?!CONCURRENTLY)",
        rf"ALTER TABLE .* ATTACH PARTITION {TABLE}",
        rf"{ALTER} ADD (?!CONSTRAINT|CHECK)(?:(?!, ADD CONSTRAINT).)*\bCHECK\b",
        r"ALTER DOMAIN .* SET NOT NULL",
    ),
    "changes-rows": (
        "Others wait for each row that it changes until the migration ends.",
        rf"(?:WITH .*\b)?(?:UPDATE|DELETE FROM|MERGE INTO) {TABLE}(?!.* WHERE {ONE_ROW})",
    ),
    "breaks-the-old-version": (
        "The version of the app that still runs loses something that it uses.",
        rf"{ALTER} (?:ENABLE|FORCE) ROW LEVEL SECURITY",
        rf"{ALTER} ADD .*(?:NOT NULL DEFAULT NULL|DEFAULT NULL NOT NULL)\b",
        r"ALTER .* OWNER TO|REVOKE|DROP (?:OWNED|ROLE|USER)\b",
    ),
    "changes-the-lock-timeout": (
        "Everybody else queues behind a migration that waits longer for its lock.",
        r"(?:SET (?:LOCAL |SESSION )?|RESET )(?:LOCK_TIMEOUT|ALL)\b|SELECT .*SET_CONFIG",
    ),
    "hides-statements": (
        "The lint does not read the statements in it.",
        r"CALL\b",
        r"DO .*\b(?:ALTER|DROP|TRUNCATE|UPDATE|DELETE|MERGE|EXECUTE|LOCK|INDEX|REFRESH|CALL)\b",
    ),
}
UNREAD = re.compile(
    r"""--[^\n]*|/\*.*?\*/|"(?:[^"]|"")*"|'(?:[^']|'')*'|(\$\w*\$).*?\1""", re.DOTALL
)
IGNORED = re.compile(r"-- *squawk-ignore (.*)")


def found(sql: str) -> Iterator[tuple[str, str, str]]:
    """The rule, the statement and the harm of each unsafe form."""
    made = {"ALEMBIC_VERSION"}
    for raw, statement in _statements(sql):
        if new := re.match(r"CREATE (?:\w+ )*?TABLE (?:IF NOT EXISTS )?([\w.\"]+)", statement):
            made.add(new[1])
        ignored = {name.strip() for names in IGNORED.findall(raw) for name in names.split(",")}
        for rule in RULES.keys() - ignored:
            harm, *forms = RULES[rule]
            matches = [match for form in forms if (match := re.match(form, statement))]
            # Nobody uses a table that this migration makes.
            if any(match.groupdict().get("table") not in made for match in matches):
                yield rule, _shown(raw), harm


def for_squawk(sql: str) -> str:
    """Without the names of these rules, which Squawk does not know, and one matter of taste."""

    def others(ignored: re.Match[str]) -> str:
        names = [name for name in re.split(r"\s*,\s*", ignored[1].strip()) if name not in RULES]
        return f"-- squawk-ignore {', '.join(names)}" if names else ""

    return "-- squawk-ignore-file require-enum-value-ordering\n" + IGNORED.sub(others, sql)


def _statements(sql: str) -> Iterator[tuple[str, str]]:
    """Each as it is written, and in capitals without comments and strings."""
    plain = UNREAD.sub(_blank, sql)
    # Alembic sets the limits before it begins.
    begin = max(plain.find("BEGIN;"), 0)
    for one in re.finditer(r"[^;]+", plain[begin:]):
        start, end = (begin + place for place in one.span())
        statement = " ".join(one[0].upper().split())
        if statement.split()[:1] == ["DO"]:
            statement += " " + " ".join(_body(sql[start:end]).upper().split())
        yield sql[start:end], statement


def _blank(token: re.Match[str]) -> str:
    return token[0] if token[0].startswith('"') else " " * len(token[0])


def _body(do: str) -> str:
    """Of a DO block, without the functions and the strings that are written in it."""
    bodies = [token[0] for token in UNREAD.finditer(do) if token[0][0] in "$'"]
    within = [re.sub(r"^(?:\$\w*\$|')|(?:\$\w*\$|')$", "", body) for body in bodies]
    return " ".join(UNREAD.sub(_blank, body) for body in within)


def _shown(raw: str) -> str:
    code = re.sub(r"--[^\n]*|/\*.*?\*/", " ", raw, flags=re.DOTALL)
    return " ".join(code.split())[:100]
