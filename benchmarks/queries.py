"""The cost of optional parts: a Query with five filters and two orders against a fixed Query.

In a generated repo of any stage:

    uv run python ../rung/benchmarks/queries.py

It measures what happens before the SQL is sent: choose the form, check and order the values.
"""

import statistics
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import bindparam, column, select, table

sys.path.insert(0, str(Path.cwd()))

from app.infra.reads import Query

ROUNDS, CALLS = 400, 200
MOST_MORE_US = 30

THINGS = table("things", *(column(name) for name in ("id", "a", "b", "c", "d", "e")))
SOME = {"a": 1, "b": None, "c": 3, "d": None, "e": None}


class Row(NamedTuple):
    id: int


def conditions() -> list[Any]:
    return [THINGS.c[name] == bindparam(name) for name in SOME]


FIXED = Query(
    select(THINGS.c.id).where(*conditions()[:3:2]).order_by(THINGS.c.id).limit(bindparam("limit")),
    Row,
)
OPTIONAL = Query(
    select(THINGS.c.id).limit(bindparam("limit")),
    Row,
    optional=conditions(),
    orders={"newest": THINGS.c.id.desc(), "oldest": THINGS.c.id},
)


def microseconds(query: Query[Row], values: dict[str, Any]) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        given = dict(values)
        query.form(given).arguments(given)
    return (time.perf_counter() - begun) / CALLS * 1e6


def main() -> int:
    calls = {
        "fixed": (FIXED, {"limit": 20, "a": 1, "c": 3}),
        "with optional parts": (OPTIONAL, {"limit": 20, "order": "oldest", **SOME}),
    }
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            took[name].append(microseconds(*call))
    print("| a Query | p50 µs | p99 µs |\n|---|---|---|")
    for name, times in took.items():
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"| {name} | {statistics.median(times):.1f} | {p99:.1f} |")
    fixed, optional = (statistics.median(times) for times in took.values())
    print(f"\nThe optional parts cost {optional - fixed:.1f} µs a call (at most {MOST_MORE_US}).")
    return 0 if optional - fixed <= MOST_MORE_US else 1


if __name__ == "__main__":
    sys.exit(main())
