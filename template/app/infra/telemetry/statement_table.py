# Rung's file: advancing to another stage may change it.
"""The table that a statement reads or writes."""

import functools
import re

from app.infra.statement_text import HIDDEN, outer

_TARGET = re.compile(
    r"(?<!DISTINCT )\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?\"?([\w.]+)", re.IGNORECASE
)
_SUBQUERY = re.compile(rf"\bFROM\s+(?:LATERAL\s+)?({HIDDEN}+)", re.IGNORECASE)


@functools.lru_cache(maxsize=1000)  # per copy: the same in all
def table_of(sql: str) -> str | None:
    """The table that the statement names first, or that of its subquery if it names none."""
    masked = outer(sql)
    if found := _TARGET.search(masked):
        return found[1]
    if inner := _SUBQUERY.search(masked):
        return table_of(sql[inner.start(1) + 1 : inner.end(1) - 1])
    anywhere = _TARGET.search(sql)
    return anywhere[1] if anywhere else None
