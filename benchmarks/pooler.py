"""The app through PgBouncer, against the same app without it. Run it inside a generated repo from
stage 2:

    uv run python path/to/rung/benchmarks/pooler.py

Needs wrk and PgBouncer. One worker each, 32 connections, 1,000 products, one Postgres. PgBouncer
has the delivered configuration. From 1.21 on, it keeps prepared statements.
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comparing import Against, longest_tail, only, report
from serving import (
    Cases,
    Server,
    cookie_of_somebody,
    interleave_starts,
    items,
    migrated_and_filled,
    serve_app,
)

sys.path.insert(0, str(Path.cwd()))

from dev import services
from dev.pooling import pgbouncer

ROUTES = ("item by id", "page of 20", "me", "my orders")
WITHOUT, THROUGH = "without a pooler", "through PgBouncer"
OF_WITHOUT = Against(WITHOUT, "of that without", {THROUGH: 0.85})
P99_IN_P50 = 3


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    with (
        migrated_and_filled() as given,
        services.environment(given) as without,
        pgbouncer.running(without["DATABASE_URL"]) as bouncer,
    ):
        without.pop("OTEL_EXPORTER_OTLP_ENDPOINT", None)  # its receiver would take a processor
        through = without | {
            "DATABASE_POOLED": "true",
            "DATABASE_DIRECT_URL": without["DATABASE_URL"],
            "DATABASE_URL": bouncer.url,
            "DATABASE_READ_URL": bouncer.read_url,
            "DATABASE_STATEMENT_CACHE": "100" if pgbouncer.keeps_statements() else "0",
        }

        @contextmanager
        def started() -> Iterator[Cases]:
            with serve_app(without) as one, serve_app(through) as other:
                yield _cases(WITHOUT, one) | _cases(THROUGH, other)

        results = interleave_starts(started, options.rounds, options.seconds)
    reports = [report(route, only(route, results), OF_WITHOUT) for route in ROUTES]
    met = all(reports)
    tail = longest_tail(results, [f"{route}, {THROUGH}" for route in ROUTES])
    print(f"\nlongest tail {THROUGH}: p99 of {tail:.1f} times p50 (at most {P99_IN_P50})")
    met &= tail <= P99_IN_P50
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


def _cases(way: str, app: Server) -> Cases:
    cookie = ["-H", f"Cookie: {cookie_of_somebody(app.url)}"]
    requests = (
        [f"{app.url}{items(app.url)[0]}"],
        [f"{app.url}/products?limit=20"],
        [f"{app.url}/me", *cookie],
        [f"{app.url}/orders", *cookie],
    )
    return {f"{route}, {way}": request for route, request in zip(ROUTES, requests, strict=True)}


if __name__ == "__main__":
    sys.exit(main())
