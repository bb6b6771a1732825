"""The gain and the cost of the cache. Run it inside a generated repo of stage 3 without replicas,
and name a repo of stage 2:

    uv run python path/to/rung/benchmarks/caching.py ../shop-of-stage-2

Needs wrk. One worker each, 32 connections, 1,000 products, a new Postgres and a new Valkey. With
OTEL_* variables set, the cached item is measured with them as well.
"""

import argparse
import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen
from uuid import uuid4

import asyncpg
import httpx
from comparing import Against, report
from serving import (
    Cases,
    free_port,
    interleave_starts,
    items,
    migrated_and_filled,
    resident_mib,
    seconds_to_listen,
    serve,
    serve_app,
)

sys.path.insert(0, str(Path.cwd()))

from dev.cache import valkey

PLAIN = """
import os
import redis.asyncio as redis
from fastapi import FastAPI, Response

app = FastAPI()
client = redis.from_url(os.environ["CACHE_URL"])

@app.get("/hello")
async def hello(): return {"hello": "world"}

@app.get("/set")
async def set(): await client.set("plain", os.environ["PLAIN"])

@app.get("/plain")
async def plain(): return Response(await client.get("plain"), media_type="application/json")
"""

OF_PLAIN = Against(
    "plain Redis GET", "of plain", {"item by id, cached": 0.80, "item by id, traced": 0.72}
)
OF_STAGE_2 = Against("item by id, stage 2", "of stage 2", {"item by id, cache down": 0.90})
FEWER_CALLS = 10
RESIDENT_MIB = 140
LISTENING_SECONDS = 1.5

VISITORS = 20
LOOKS = 100

CALLS = """
    SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
    WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("stage_2", type=Path)
    arguments.add_argument("--rounds", type=int, default=8)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    telemetry = {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
    for name in telemetry:
        del os.environ[name]
    with ExitStack() as stack:
        bare = stack.enter_context(migrated_and_filled())
        cache = stack.enter_context(valkey.running("cache"))
        cached = {**bare, "CACHE_URL": cache.url}
        away = {**bare, "CACHE_URL": f"redis://127.0.0.1:{free_port()}"}
        listening = statistics.median(seconds_to_listen(cached) for _ in range(5))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "plain.py").write_text(PLAIN)

        @contextmanager
        def started() -> Iterator[Cases]:
            with ExitStack() as servers:
                app = servers.enter_context(serve_app(cached))
                before = servers.enter_context(serve_app(bare, options.stage_2))
                without = servers.enter_context(serve_app(away))
                [path] = items(app.url)
                kept = {**cached, "PLAIN": httpx.get(app.url + path).text}
                arguments = ["--app-dir", str(folder), "plain:app"]
                plain = servers.enter_context(serve(arguments, kept))
                urlopen(f"{plain.url}/set").close()
                cases = {
                    "hello": [f"{plain.url}/hello"],
                    "plain Redis GET": [f"{plain.url}/plain"],
                    "item by id, cached": [f"{app.url}{path}"],
                    "page of 20, cached": [f"{app.url}/products?limit=20"],
                    "item by id, stage 2": [f"{before.url}{path}"],
                    "item by id, cache down": [f"{without.url}{path}"],
                }
                if telemetry:
                    traced = servers.enter_context(serve_app({**cached, **telemetry}))
                    cases["item by id, traced"] = [f"{traced.url}{path}"]
                yield cases

        results = interleave_starts(started, options.rounds, options.seconds)
        met = report("what", results, OF_PLAIN, OF_STAGE_2)
        app = stack.enter_context(serve_app(cached))
        before = stack.enter_context(serve_app(bare, options.stage_2))
        calls = {
            name: asyncio.run(_calls_a_request(bare["DATABASE_URL"], server.url))
            for name, server in (("stage 2", before), ("stage 3", app))
        }
        resident = resident_mib(app.process.pid)
    fewer = calls["stage 2"] / calls["stage 3"]
    print(
        f"\nPostgres calls a request of people who browse: {calls['stage 2']:.2f} at stage 2,"
        f" {calls['stage 3']:.3f} cached: {fewer:.0f} times fewer (at least {FEWER_CALLS})"
        f"\nresident after the load: {resident:.0f} MiB (at most {RESIDENT_MIB})"
        f"\nlistening after: {listening:.2f} s (at most {LISTENING_SECONDS})"
    )
    met &= fewer >= FEWER_CALLS and resident <= RESIDENT_MIB and listening <= LISTENING_SECONDS
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


async def _calls_a_request(database: str, host: str) -> float:
    """For visitors that have just registered, so that each must see its own write."""
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    visitors = [await _visitor(host) for _ in range(VISITORS)]
    before = await connection.fetchval(CALLS)
    await asyncio.gather(*(_browse(visitor) for visitor in visitors))
    calls = await connection.fetchval(CALLS) - before - 1  # this query itself
    for visitor in visitors:
        await visitor.aclose()
    await connection.close()
    return calls / (VISITORS * LOOKS)


async def _visitor(host: str) -> httpx.AsyncClient:
    visitor = httpx.AsyncClient(base_url=host)
    email = f"{uuid4()}@example.com"
    person = {"email": email, "password": "correct horse battery staple"}
    answer = (await visitor.post("/accounts", json=person)).raise_for_status()
    visitor.headers["Read-After"] = answer.headers.get("Read-After", "")
    return visitor


async def _browse(visitor: httpx.AsyncClient) -> None:
    """As in tests/load/locustfile.py: two products to one page."""
    page = (await visitor.get("/products?limit=20")).json()["products"]
    for turn in range(LOOKS - 1):
        path = "?limit=20" if turn % 3 == 0 else f"/{page[turn % 20]['id']}"
        (await visitor.get(f"/products{path}")).raise_for_status()


if __name__ == "__main__":
    sys.exit(main())
