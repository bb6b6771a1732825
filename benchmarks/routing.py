"""The cost and the gain of replica routing. Run it inside a generated repo of stage 2 with
replicas, and name one of stage 1 beside it:

    uv run --group load python path/to/rung/benchmarks/routing.py ../shop-of-stage-1

Needs wrk. Its own primary and streaming replica, 1,000 products. It shows reads of both
repos in one interleaved run, writes with and without noting their position, and how many of the
sample load's reads each server answered, by its own count: for browsers, and for clients with a
token that send nothing else back. With `--share` it shows only the last.
"""

import argparse
import asyncio
import importlib
import os
import pkgutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import asyncpg
from comparing import Against, only, report
from serving import Cases, interleave_starts, items, migrated_and_filled, serve_app
from sqlalchemy import text

sys.path.insert(0, str(Path.cwd()))

import app
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.own_writes.commits import PositionedSession
from app.infra.own_writes.rows import SESSION_WITH_POSITIONS
from app.infra.reads import Query
from app.infra.replicas.replicas import ReplicaSettings
from app.infra.replicas.routing import RoutedDatabase
from app.infra.session_rows import SESSION_BY_TOKEN
from dev.replicas import replica

WHAT = ("item by id", "page")
OF_STAGE_1 = Against("stage 1", "of stage 1", {"stage 2": 0.95})
POSITION_MS = 0.5
VISITORS = {
    "browsers": (Path("tests/load/locustfile.py"), 0.95),
    "clients with a token": (Path(__file__).parent / "token_visitors.py", 0.8),
}

# By their text: the reads of a writing transaction cannot go to another server.
COUNTED = """
    SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND query = ANY($1)
"""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("stage_1", type=Path)
    arguments.add_argument("--share", action="store_true")
    arguments.add_argument("--rounds", type=int, default=8)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    with ExitStack() as stack:
        alone = stack.enter_context(migrated_and_filled())
        replica_url = stack.enter_context(replica.for_own(alone["DATABASE_URL"]))
        routed = {**alone, "DATABASE_REPLICA_URLS": replica_url}

        @contextmanager
        def started() -> Iterator[Cases]:
            with ExitStack() as servers:
                apps = {
                    "stage 1": servers.enter_context(serve_app(alone, options.stage_1)),
                    "stage 2": servers.enter_context(serve_app(routed)),
                    "no replica": servers.enter_context(serve_app(alone)),
                }
                paths = zip(WHAT, [*items(apps["stage 1"].url), "/products?limit=20"], strict=True)
                yield {
                    f"{what}, {stage}": [f"{server.url}{path}"]
                    for what, path in paths
                    for stage, server in apps.items()
                }

        met = True
        if not options.share:
            results = interleave_starts(started, options.rounds, options.seconds)
            for what in WHAT:
                met &= report(what, only(what, results), OF_STAGE_1)
            met &= _report_position(*asyncio.run(_time_writes(routed)))
        server = stack.enter_context(serve_app(routed))
        for visitors in VISITORS:
            met &= _report_share(routed, server.url, options.seconds * 5, visitors)
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


async def _time_writes(environment: dict[str, str]) -> tuple[list[float], list[float]]:
    """Milliseconds of a transaction, without and with its position noted."""
    os.environ.update(environment)
    settings = DatabaseSettings()
    took: tuple[list[float], list[float]] = ([], [])
    async with Database(settings) as plain, RoutedDatabase(settings, ReplicaSettings()) as routed:
        routed.session_class = PositionedSession
        for turn in range(1100):
            for database, times in zip((plain, routed), took, strict=True):
                started = time.perf_counter()
                async with database.transaction() as write:
                    await write.execute(
                        text("UPDATE products SET stock = stock WHERE price_cents = 1")
                    )
                if turn >= 100:
                    times.append((time.perf_counter() - started) * 1000)
    return took


def _report_position(plain: list[float], noted: list[float]) -> bool:
    cost = statistics.median(noted) - statistics.median(plain)
    print("\n| a write | p50 ms | p99 ms |\n|---|---|---|")
    for name, times in (("without its position", plain), ("with its position", noted)):
        p99 = statistics.quantiles(times, n=100)[98]
        print(f"| {name} | {statistics.median(times):.2f} | {p99:.2f} |")
    print(f"\nThe position costs {cost:.2f} ms at p50 (at most {POSITION_MS}).")
    return cost <= POSITION_MS


def _report_share(environment: dict[str, str], host: str, seconds: int, visitors: str) -> bool:
    servers = (environment["DATABASE_URL"], environment["DATABASE_REPLICA_URLS"])
    asyncio.run(_query(servers[0], "CREATE EXTENSION IF NOT EXISTS pg_stat_statements"))
    lookups = [query.fixed.sql for query in (SESSION_BY_TOKEN, SESSION_WITH_POSITIONS)]
    reads = [sql for query in _queries() if (sql := query.fixed.sql) not in lookups]
    before = [_counts(server, reads, lookups) for server in servers]
    locustfile, target = VISITORS[visitors]
    load = ["locust", "--locustfile", str(locustfile), "--headless", "--only-summary"]
    load += ["--users", "20", "--spawn-rate", "20", "--run-time", f"{seconds}s", "--host", host]
    subprocess.run(load, env={**os.environ, "PYTHONPATH": "."}, check=True)
    after = [_counts(server, reads, lookups) for server in servers]
    (primary, looked_up), (standby, _) = (
        [end - begin for begin, end in zip(*counts, strict=True)]
        for counts in zip(before, after, strict=True)
    )
    share = standby / max(primary + standby, 1)
    print(
        f"\n{visitors}: of {primary + standby:,} reads the replica served {share:.1%} (at least"
        f" {target:.0%}). The primary looked up {looked_up:,} sessions."
    )
    return share >= target


def _counts(server: str, *groups: list[str]) -> list[int]:
    return [int(str(asyncio.run(_query(server, COUNTED, group)))) for group in groups]


def _queries() -> list[Query]:
    return [
        value
        for module in pkgutil.walk_packages(app.__path__, "app.")
        for value in vars(importlib.import_module(module.name)).values()
        if isinstance(value, Query)
    ]


async def _query(server: str, statement: str, *arguments: object) -> object:
    connection = await asyncpg.connect(server)
    try:
        return await connection.fetchval(statement, *arguments)
    finally:
        await connection.close()


if __name__ == "__main__":
    sys.exit(main())
