"""What login sessions in Redis cost. Run it inside a generated repo of stage 4, and name one of
stage 3 beside it:

    uv run python path/to/rung/benchmarks/sessions.py ../shop-of-stage-3

Needs wrk. `me`, which reads a session and an account, of both repos in one interleaved run: at
stage 4 with the session in Redis, and with it in Postgres still. Then what one session takes of
Redis' memory.
"""

import argparse
import asyncio
import statistics
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import httpx
from serving import Server, interleave, migrated_and_filled, serve_app

sys.path.insert(0, str(Path.cwd()))

from app.infra.redis_sessions import KEEP, RedisSessions
from app.infra.session_rows import Session, SessionSettings
from dev import valkey

OF_STAGE_3 = 0.95
SESSIONS = 100_000


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("stage_3", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    with ExitStack() as stack:
        rows = stack.enter_context(migrated_and_filled())
        redis = stack.enter_context(valkey.running("sessions"))
        moved = {**rows, "SESSION_STORE": "redis", "SESSION_REDIS_URL": redis.url}
        servers = {
            "stage 3": stack.enter_context(serve_app(rows, options.stage_3)),
            "stage 4, in Redis": stack.enter_context(serve_app(moved)),
            "stage 4, in Postgres": stack.enter_context(serve_app(rows)),
        }
        cases = {name: _me(server, name) for name, server in servers.items()}
        results = interleave(cases, options.rounds, options.seconds)
        size = asyncio.run(_bytes_each(redis.url))
    met = _report(results)
    print(f"\nA session takes {size:,.0f} bytes of Redis' memory.")
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


def _me(server: Server, name: str) -> list[str]:
    email = f"{name.replace(' ', '').replace(',', '')}@example.com"
    person = {"email": email, "password": "correct horse battery staple"}
    answer = httpx.post(f"{server.url}/accounts", json=person).raise_for_status()
    return [f"{server.url}/me", "-H", f"Cookie: {answer.headers['set-cookie'].split(';')[0]}"]


def _report(results: dict[str, list[tuple[float, float, float]]]) -> bool:
    print("| me | requests/s | p50 ms | p99 ms | of stage 3 | at least |")
    print("|---|---|---|---|---|---|")
    met = True
    for name, runs in results.items():
        requests, p50, p99 = (statistics.median(column) for column in zip(*runs, strict=True))
        pairs = zip(runs, results["stage 3"], strict=True)
        ratio = statistics.median(run[0] / of[0] for run, of in pairs)
        target = None if name == "stage 3" else OF_STAGE_3
        print(
            f"| {name} | {requests:,.0f} | {p50:.1f} | {p99:.1f} | {ratio:.3f} | {target or ''} |"
        )
        met &= target is None or ratio >= target
    return met


async def _bytes_each(url: str) -> float:
    redis = RedisSessions(url, 10, SessionSettings())
    before = await redis.client.info("memory")
    now = datetime.now(UTC)
    for _ in range(SESSIONS // 1000):
        pipeline = redis.client.pipeline(transaction=False)
        for _ in range(1000):
            session = Session(uuid4(), now, now + timedelta(days=90))
            pipeline.eval(KEEP, 2, *redis.kept(uuid4().bytes * 2, session))
        await pipeline.execute()
    after = await redis.client.info("memory")
    await redis.close()
    return (after["used_memory"] - before["used_memory"]) / SESSIONS


if __name__ == "__main__":
    sys.exit(main())
