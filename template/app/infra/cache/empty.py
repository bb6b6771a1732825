# Rung's file: advancing to another stage may change it.
"""Whether an answer has no rows: the first one may be created at any moment."""

import json
import re

# Scalar fields with such names say where a page is, not what is in it.
PAGING = re.compile(r"cursor|next|prev|before|after|offset|page|limit|size", re.IGNORECASE)


def has_no_rows(body: bytes) -> bool:
    return _is_empty(json.loads(body))


def _is_empty(value: object) -> bool:
    """null, [], {}, or an envelope of nothing else: {"articles": [], "next": null, "total": 0}."""
    if not isinstance(value, dict) or not value:
        return value is None or value == [] or value == {}
    content = [field for name, field in value.items() if not _is_paging(name, field)]
    empty = [field for field in content if _is_empty(field)]
    return empty != [] and all(field in empty or field in (0, "") for field in content)


def _is_paging(name: str, field: object) -> bool:
    return isinstance(field, str | int) and PAGING.search(name) is not None
