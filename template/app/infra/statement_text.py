# Rung's file: advancing to another stage may change it.
"""Shows a statement in one line."""

import re

LONG_COLUMNS = 48

_FROM = re.compile(r"(?<!DISTINCT )\bFROM\b", re.IGNORECASE)
_TEXT = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_INNERMOST = re.compile(r"\([^()]*\)")

# Replaces each character inside parentheses, so that no word is found there.
HIDDEN = "\0"


def shortened(sql: str, room: int) -> str:
    """One line of at most `room` characters, the tables and conditions rather than the columns."""
    line = " ".join("".join(c if c.isprintable() else " " for c in sql).split())
    # A subquery among the columns has its own FROM, which does not count.
    tables = _FROM.search(outer(line))
    if line[:7].upper() == "SELECT " and tables and tables.start() > LONG_COLUMNS:
        line = f"{line[:7]}… {line[tables.start() :]}"
    return line if len(line) <= room else line[: room - 1] + "…"


def outer(sql: str) -> str:
    """The statement with its subqueries and texts blanked out. Positions stay the same."""
    masked = _TEXT.sub(_hide, sql)
    while (shown := _INNERMOST.sub(_hide, masked)) != masked:
        masked = shown
    return masked


def _hide(found: re.Match[str]) -> str:
    return HIDDEN * len(found[0])
