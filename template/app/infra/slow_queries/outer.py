# Rung's file: advancing to another stage may change it.
"""The outer part of a statement, because a subquery may come first."""

import functools
import re

_TARGET = re.compile(r"\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?\"?([\w.]+)", re.IGNORECASE)
_FROM = re.compile(r"\bFROM\b", re.IGNORECASE)


@functools.lru_cache(maxsize=1000)  # per copy: the same in all
def table_of(sql: str) -> str | None:
    """The table that a statement reads or writes; of a subquery only if there is no other."""
    found = _TARGET.search(_masked(sql)) or _TARGET.search(sql)
    return found[1] if found else None


def outer_from(sql: str) -> int | None:
    """Where the statement's own FROM begins."""
    found = _FROM.search(_masked(sql))
    return found.start() if found else None


def _masked(sql: str) -> str:
    """As long as the statement. What stands in parentheses is hidden."""
    depth, shown = 0, []
    for character in sql:
        depth += character == "("
        shown.append("(" if depth else character)
        depth -= character == ")"
    return "".join(shown)
