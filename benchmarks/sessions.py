"""The cost of login sessions in Redis. Run it inside a generated repo of stage 4, and name one of
stage 3 beside it:

    uv run python path/to/rung/benchmarks/sessions.py ../shop-of-stage-3

Needs wrk. `me`, which reads a session and an account, and a product from the cache, of both repos
in one interleaved run: at stage 4 with sessions in Redis, and with sessions in Postgres. Then the
memory that one session takes in Redis.
"""

import argparse
import asyncio
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from comparing import Against, only, report
from serving import cookie_of_somebody, interleave, items, migrated_and_filled, serve_app

sys.path.insert(0, str(Path.cwd()))

from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import Session, SessionSettings
from dev.cache import valkey

OF_STAGE_3 = Against(
    "stage 3", "of stage 3", {"stage 4, in Redis": 0.95, "stage 4, in Postgres": 0.95}
)
SESSIONS = 100_000


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("stage_3", type=Path)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=3)
    options = arguments.parse_args()
    with ExitStack() as stack:
        bare = stack.enter_context(migrated_and_filled())
        rows = {**bare, "CACHE_URL": stack.enter_context(valkey.running("cache")).url}
        redis = stack.enter_context(valkey.running("sessions"))
        moved = {**rows, "SESSION_STORE": "redis", "SESSION_REDIS_URL": redis.url}
        servers = {
            "stage 3": stack.enter_context(serve_app(rows, options.stage_3)),
            "stage 4, in Redis": stack.enter_context(serve_app(moved)),
            "stage 4, in Postgres": stack.enter_context(serve_app(rows)),
        }
        path = items(servers["stage 3"].url)[0]
        cases = {
            f"me, {name}": [f"{server.url}/me", "-H", f"Cookie: {cookie_of_somebody(server.url)}"]
            for name, server in servers.items()
        } | {f"item by id, cached, {name}": [server.url + path] for name, server in servers.items()}
        results = interleave(cases, options.rounds, options.seconds)
        size = asyncio.run(_bytes_each(redis.url))
    met = True
    for what in ("me", "item by id, cached"):
        met &= report(what, only(what, results), OF_STAGE_3)
    print(f"\nA session takes {size:,.0f} bytes of Redis' memory.")
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


async def _bytes_each(url: str) -> float:
    redis = RedisSessions(url, 10, SessionSettings())
    before = await redis.client.info("memory")
    now = datetime.now(UTC)
    for _ in range(SESSIONS // 1000):
        pipeline = redis.client.pipeline(transaction=False)
        for _ in range(1000):
            session = Session(uuid4(), now, now + timedelta(days=90))
            pipeline.eval(*redis.keep_command(uuid4().bytes * 2, session))
        await pipeline.execute()
    after = await redis.client.info("memory")
    await redis.aclose()
    return (after["used_memory"] - before["used_memory"]) / SESSIONS


if __name__ == "__main__":
    sys.exit(main())
