"""Latency and failures while Redis, or the receiver of telemetry, is killed, away or hung. Run it
inside a generated repo of stage 3 or 4 without replicas:

    uv run python path/to/rung/benchmarks/faults.py

One worker each, a steady load far below its limit, 1,000 products, a new Postgres and a new Valkey.
Redis' faults begin and end while requests are counted, so the failure and the return count as well.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import redis
from serving import Server, free_port, items, migrated_and_filled, resident_mib, serve_app
from steady_load import A_SECOND, CONNECTIONS, Answered, content_length, load

sys.path.insert(0, str(Path.cwd()))

from dev.cache.valkey import Valkey, running

PRODUCTS = 100
ALONE, UNTOLD = "Postgres only", "no telemetry"
# Allowed difference of p99 from the base case.
REDIS_MS, RECEIVER_MS = 100, 5
GROWTH_MIB = 8

# When (0 is the begin of the window, 1 its end) and what happens.
type Step = tuple[float, Callable[[Valkey], object]]

FAULTS: dict[str, list[Step]] = {
    "Redis well": [],
    "Redis killed": [(0.2, Valkey.die), (1.0, Valkey.start)],
    "killed, started again": [(0.2, Valkey.die), (0.5, Valkey.start)],
    "stopped, continued": [(0.2, Valkey.hang), (0.6, Valkey.go_on)],
}

# The most that can be sent: two spans a request, and a queue of 2,048.
TELEMETRY = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_METRIC_EXPORT_INTERVAL": "1000"}

type Rounds = dict[str, list[Answered]]


def main() -> int:
    measured = {"redis": of_redis, "receiver": of_receiver}
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--of", choices=measured, help="one of the two alone")
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=10)
    options = arguments.parse_args()
    print(f"{A_SECOND} requests a second on {CONNECTIONS} connections")
    met = True
    with migrated_and_filled() as environment, running("cache") as cache:
        for name in [options.of] if options.of else measured:
            met &= asyncio.run(measured[name](environment, cache, options.rounds, options.seconds))
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


async def of_redis(environment: dict[str, str], cache: Valkey, rounds: int, seconds: float) -> bool:
    results: Rounds = {name: [] for name in (ALONE, *FAULTS)}
    with (
        serve_app(environment) as alone,
        serve_app(environment | {"CACHE_URL": cache.url}) as cached,
    ):
        paths = items(alone.url, PRODUCTS)
        await load(alone.url, paths, 1)
        for _ in range(rounds):
            results[ALONE].append(await load(alone.url, paths, seconds))
            for name, steps in FAULTS.items():
                await _until_in_use(cache, cached, paths)
                answered, _ = await asyncio.gather(
                    load(cached.url, paths, seconds), _happen(steps, cache, seconds)
                )
                results[name].append(answered)
    return _report(results, ALONE, REDIS_MS)


async def _until_in_use(cache: Valkey, app: Server, paths: Sequence[str]) -> None:
    """By Redis' own count: faults of a cache that is not used would prove nothing."""
    with redis.Redis.from_url(cache.url) as client:
        for _ in range(10):
            before = client.info("stats")["keyspace_hits"]
            await load(app.url, paths, 1)
            if client.info("stats")["keyspace_hits"] > before + A_SECOND / 2:
                return
    sys.exit("The app does not use the cache.")


async def _happen(steps: Sequence[Step], cache: Valkey, seconds: float) -> None:
    begun = asyncio.get_running_loop().time()
    for when, step in steps:
        await asyncio.sleep(begun + when * seconds - asyncio.get_running_loop().time())
        await asyncio.to_thread(step, cache)


async def of_receiver(
    environment: dict[str, str], cache: Valkey, rounds: int, seconds: float
) -> bool:
    untold = environment | {"CACHE_URL": cache.url}
    async with _receiving(answers=True) as well, _receiving(answers=False) as hung:
        receivers = {
            "receiver well": well,
            "receiver down": f"http://127.0.0.1:{free_port()}",
            "receiver hung": hung,
        }
        environments = {UNTOLD: untold} | {
            name: untold | TELEMETRY | {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
            for name, url in receivers.items()
        }
        async with _serving(environments) as apps:
            paths = items(apps[UNTOLD].url, PRODUCTS)
            for app in apps.values():
                await load(app.url, paths, 1)
            before = _resident(apps)
            results: Rounds = {name: [] for name in apps}
            for _ in range(rounds):
                for name, app in apps.items():
                    results[name].append(await load(app.url, paths, seconds))
            after = _resident(apps)
    met = _report(results, UNTOLD, RECEIVER_MS)
    return _report_growth(before, after) and met


@asynccontextmanager
async def _serving(
    environments: dict[str, dict[str, str]],
) -> AsyncGenerator[dict[str, Server]]:
    stack = ExitStack()
    try:
        yield {
            name: stack.enter_context(serve_app(environment))
            for name, environment in environments.items()
        }
    finally:
        # At its end each sends the rest to a receiver that runs in this event loop.
        await asyncio.to_thread(stack.close)


def _resident(apps: dict[str, Server]) -> dict[str, float]:
    return {name: resident_mib(app.process.pid) for name, app in apps.items()}


@asynccontextmanager
async def _receiving(*, answers: bool) -> AsyncGenerator[str]:
    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(content_length(head))
                if answers:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        except (OSError, EOFError):
            writer.close()

    async with await asyncio.start_server(take, "127.0.0.1") as server:
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.abort_clients()


def _report(results: Rounds, base: str, most: float) -> bool:
    print(f"\n| | requests | failed | p50 ms | p99 ms | worst ms | p99 over {base} | at most |")
    print("|---|---|---|---|---|---|---|---|")
    met = True
    for name, rounds in results.items():
        requests = sum(one.requests for one in rounds)
        failed = sum(one.failed for one in rounds)
        p50 = statistics.median(one.p50 for one in rounds)
        p99 = statistics.median(one.p99 for one in rounds)
        worst = max(one.worst for one in rounds)
        pairs = zip(rounds, results[base], strict=True)
        over = statistics.median(one.p99 - of.p99 for one, of in pairs)
        limit = "" if name == base else most
        print(
            f"| {name} | {requests:,} | {failed} | {p50:.1f} | {p99:.1f} | {worst:.0f}"
            f" | {over:+.1f} | {limit} |"
        )
        met &= failed == 0 and over <= most
    return met


def _report_growth(before: dict[str, float], after: dict[str, float]) -> bool:
    print("\n| | MiB before | after | more | at most |\n|---|---|---|---|---|")
    growth = {name: after[name] - before[name] for name in before}
    for name, more in growth.items():
        print(f"| {name} | {before[name]:.0f} | {after[name]:.0f} | {more:+.1f} | {GROWTH_MIB} |")
    return max(growth.values()) <= GROWTH_MIB


if __name__ == "__main__":
    sys.exit(main())
