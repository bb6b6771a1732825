# Rung's file: advancing to another stage may change it.
"""The outer part of a statement, because a subquery may come first."""

import functools
import re

# Takes the place of all that is inside parentheses: no word can be read there.
_HIDDEN = "\0"
_TEXT = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_INNERMOST = re.compile(r"\([^()]*\)")
_FROM = re.compile(r"(?<!DISTINCT )\bFROM\b", re.IGNORECASE)
_TARGET = re.compile(
    r"(?<!DISTINCT )\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?\"?([\w.]+)", re.IGNORECASE
)
_SUBQUERY = re.compile(rf"\bFROM\s+(?:LATERAL\s+)?({_HIDDEN}+)", re.IGNORECASE)


@functools.lru_cache(maxsize=1000)  # per copy: the same in all
def table_of(sql: str) -> str | None:
    """The table that a statement reads or writes; of a subquery only if there is no other."""
    masked = _masked(sql)
    if found := _TARGET.search(masked):
        return found[1]
    if inner := _SUBQUERY.search(masked):
        return table_of(sql[inner.start(1) + 1 : inner.end(1) - 1])
    anywhere = _TARGET.search(sql)
    return anywhere[1] if anywhere else None


def outer_from(sql: str) -> int | None:
    """Where the statement's own FROM begins."""
    found = _FROM.search(_masked(sql))
    return found.start() if found else None


def _masked(sql: str) -> str:
    """As long as the statement, so that places in one are places in the other."""
    masked = _TEXT.sub(_hide, sql)
    while (shown := _INNERMOST.sub(_hide, masked)) != masked:
        masked = shown
    return masked


def _hide(found: re.Match[str]) -> str:
    return _HIDDEN * len(found[0])
