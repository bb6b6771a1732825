# Rung's file: advancing to another stage may change it.
"""Whether an answer has no rows: the first one may be created at any moment."""

import json
import re
from collections.abc import Iterator

# Numbers and texts with such names say where a page is, not what is in it.
PAGING = re.compile(r"cursor|next|prev|before|after|offset|page|limit|size", re.IGNORECASE)


def has_no_rows(body: bytes) -> bool:
    """null, [], or an envelope of nothing else: {"articles": [], "next": null, "total": 0}."""
    fields = list(_fields(json.loads(body)))
    absent = [field for field in fields if field in (None, [], {})]
    return absent != [] and all(field in absent or field in (0, "") for field in fields)


def _fields(value: object, name: str = "") -> Iterator[object]:
    if isinstance(value, dict) and value:
        for inner_name, inner in value.items():
            yield from _fields(inner, inner_name)
    elif not (isinstance(value, str | int) and PAGING.search(name)):
        yield value
