# Rung's file: advancing to another stage may change it.
"""Refuses SQL in app/ that changes the state of its session.

Through a pooler in transaction mode the session belongs to another client once the transaction has
ended. The lint reads string literals. For SQL that uses DATABASE_DIRECT_URL on purpose, end the
line with `# direct`.
"""

import ast
import re
from collections.abc import Iterator

from dev.pooling.findings import Finding, calls_in, name_of, report

LISTEN = (
    "LISTEN needs its own session: connect with DATABASE_DIRECT_URL, and end this line with"
    " `# direct`"
)
TEMPORARY = (
    "temporary tables belong to one session: use WITH … AS (…), a real table, or CREATE TEMP TABLE"
    " … ON COMMIT DROP"
)
BEGINNINGS = {
    r"SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)(SESSION\s+)?[\w.{}%]+(\s*=|\s+\S)": (
        "SET lasts longer than the transaction: use SET LOCAL, or connect_query in"
        " deploy/pgbouncer.ini"
    ),
    r"RESET\s+\w": "RESET changes the session: use SET LOCAL, which ends with the transaction",
    r"(UN)?LISTEN\s+[\w*]": LISTEN,
    r"PREPARE\s+(?!TRANSACTION\b)\w": "PREPARE belongs to one session: the driver does it for you",
    r"(DEALLOCATE|DISCARD)\s+\w": "only the pooler may clear prepared statements and session state",
    r"DECLARE\s.*\bWITH\s+HOLD\b": "WITH HOLD outlives its transaction: read page by page instead",
    r"CREATE\s+((LOCAL|GLOBAL)\s+)?TEMP(ORARY)?\s(?!.*\bON\s+COMMIT\s+DROP\b)": TEMPORARY,
    r"SELECT\s.*\bINTO\s+TEMP(ORARY)?\s": TEMPORARY,
}
FUNCTIONS = {
    r"pg_(try_)?advisory_(un)?lock\w*": (
        "the lock outlives its transaction: use pg_advisory_xact_lock, or SELECT … FOR UPDATE"
    ),
    r"set_config": "the setting outlives its transaction: use set_config(…, …, true)",
}
IS_LOCAL = re.compile(
    r"(\w+\.)*set_config\(.*,\s*(is_local\s*=>\s*)?true\s*\)", re.IGNORECASE | re.DOTALL
)
METHODS = {"add_listener": LISTEN}
# Arguments of these functions are always SQL. Other strings count only in capitals.
TAKES_SQL = {"text", "execute", "exec_driver_sql", "fetch", "fetchrow", "fetchval", "scalar"}


def find(source: str) -> list[Finding]:
    tree = ast.parse(source)
    lines = source.splitlines()
    found = {*_in_strings(tree), *_in_calls(tree)}
    return sorted(one for one in found if not lines[one.line - 1].endswith("# direct"))


def _in_strings(tree: ast.Module) -> Iterator[Finding]:
    # Docstrings, and other strings that stand alone.
    ignored = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    sql = {
        id(argument)
        for call in calls_in(tree)
        if name_of(call.func) in TAKES_SQL
        for argument in call.args
    }
    for node in ast.walk(tree):
        text = None if id(node) in ignored else _text(node)
        if text is None or not isinstance(node, ast.expr):
            continue
        # Do not judge a part of a longer text alone.
        ignored |= {id(part) for part in ast.walk(node)}
        flags = re.DOTALL | (re.IGNORECASE if id(node) in sql else re.NOFLAG)
        for statement in _statements(text):
            for pattern, problem in BEGINNINGS.items():
                if re.match(pattern, statement, flags):
                    yield Finding(node.lineno, problem)
        for name, problem in FUNCTIONS.items():
            for call in re.finditer(rf"\b{name}\s*\(([^()]*)\)?", text, re.IGNORECASE):
                if not IS_LOCAL.match(call[0]):
                    yield Finding(node.lineno, problem)


def _in_calls(tree: ast.Module) -> Iterator[Finding]:
    for call in calls_in(tree):
        name = name_of(call.func)
        for pattern, problem in FUNCTIONS.items():
            if re.fullmatch(pattern, name) and not IS_LOCAL.match(ast.unparse(call)):
                yield Finding(call.lineno, problem)
        if name in METHODS:
            yield Finding(call.lineno, METHODS[name])
        if name == "Table" and "TEMP" in ast.unparse(call):
            yield Finding(call.lineno, "temporary tables belong to one session")


def _text(node: ast.AST) -> str | None:
    """The text of a string, with {} for each part that is not known."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "{}" for part in parts)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            known = _text(left), _text(right)
            return None if known == (None, None) else "".join(part or "{}" for part in known)
        case _:
            return None


def _statements(text: str) -> Iterator[str]:
    without_comments = re.sub(r"--[^\n]*|/\*.*?\*/", " ", text, flags=re.DOTALL)
    return (statement.strip() for statement in without_comments.split(";"))


if __name__ == "__main__":
    report(find, ending="After each transaction a pooler may give the session to another client.")
