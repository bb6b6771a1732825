"""Microseconds of processor time that one route spends in each layer. In a generated repo:

    uv run python ../rung/benchmarks/where_time_goes.py [item|page|me|order]

Asks the app in this process, so the server is not in it. A profiler (cProfile) says how a
request's time is shared out. The same request without the profiler says how much there is to share.
A profiler makes calls look dearer than loops: trust the order and the size, not the last digit.
"""

import argparse
import asyncio
import cProfile
import os
import pstats
import re
import sys
import time
from collections import defaultdict
from pathlib import Path

import uvloop
from in_process import Order, Route, routes
from serving import migrated_and_filled

sys.path.insert(0, str(Path.cwd()))

from dev import services

REQUESTS = 2000

# The first pattern that a file's path contains names its layer.
LAYERS = {
    "log line": r"structlog|app/infra/(logs|database_use)|/logging/",
    "session": r"app/infra/session|app/infra/redis_sessions",
    "cache": r"app/infra/(cache|freshness)",
    "own writes, replicas": r"app/infra/(own_writes|replicas)",
    "telemetry": r"app/infra/telemetry|opentelemetry",
    "query": r"app/infra/(reads|queries|database|connections)",
    "headers, limits": r"app/infra/",
    "pool": r"asyncpg/pool",
    "Postgres driver": r"asyncpg",
    "Redis client": r"/redis/",
    "SQLAlchemy": r"sqlalchemy|greenlet",
    "dependencies": r"fastapi/(dependencies|security|params)|contextlib|/anyio/",
    "response": r"starlette/(responses|datastructures|requests)|fastapi/(encoders|responses)",
    "validation, JSON": r"pydantic|/json/|fastapi/_compat",
    "routing": r"(fastapi|starlette)/",
    "handler": r"/app/",
    "event loop": r"asyncio|uvloop",
}
OTHER = "other"


async def measure(name: str) -> tuple[float, dict[str, float]]:
    """Microseconds of a request without the profiler, and each layer's part of it."""
    from app.main import create_app

    app = create_app()
    async with app.router.lifespan_context(app):
        await asyncio.sleep(1)  # replicas and the cache are looked at first
        route = (await routes(app))[name]
        await seconds(route)
        whole = min([await seconds(route) for _ in range(5)]) / REQUESTS * 1e6
        profile = cProfile.Profile(time.process_time)
        profile.enable()
        await seconds(route)
        profile.disable()
    return whole, shared_out(pstats.Stats(profile))


async def seconds(route: Route | Order) -> float:
    began = time.process_time()
    for _ in range(REQUESTS):
        await route.ask()
    return time.process_time() - began


def shared_out(stats: pstats.Stats) -> dict[str, float]:
    """A builtin's time belongs to the file that calls it."""
    spent: dict[str, float] = defaultdict(float)
    for (file, _, name), (_, _, own, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        if Path(file).name == "in_process.py":
            continue
        if file != "~":
            spent[layer_of(file)] += own
        elif callers and layer_of(name) == OTHER:
            for (caller, *_), (_, _, own_there, _) in callers.items():
                spent[layer_of(caller)] += own_there
        else:
            spent[layer_of(name)] += own
    whole = sum(spent.values())
    return {layer: part / whole for layer, part in spent.items()}


def layer_of(place: str) -> str:
    return next((layer for layer, found in LAYERS.items() if re.search(found, place)), OTHER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("route", nargs="?", default="item", choices=("item", "page", "me", "order"))
    name = parser.parse_args().route
    out = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the app's log lines
    with migrated_and_filled() as given, services.environment(given) as environment:
        os.environ.update(environment | {"OTEL_TRACES_SAMPLER": "always_off"})
        whole, parts = uvloop.run(measure(name))
    os.dup2(out, 1)
    print(f"| {name} | µs | of it |\n|---|---|---|")
    for layer, part in sorted(parts.items(), key=lambda item: -item[1]):
        print(f"| {layer} | {part * whole:.0f} | {part:.0%} |")
    print(f"| together | {whole:.0f} | |")


if __name__ == "__main__":
    main()
