# Rung's file: advancing to another stage may change it.
"""Delays the replica, to show how the app behaves with replication lag."""

import asyncio
import os
import sys

from dotenv import load_dotenv

from app.infra.failures import CANNOT_CONNECT, reason_of
from dev import postgres
from dev.replicas import replica

NONE_RUNS = """No replica runs here. Start `make dev` first, in another terminal.
With a DATABASE_URL of your own, name its replica in DATABASE_REPLICA_URLS."""


def main() -> None:
    load_dotenv()
    delay(sys.argv[1])


def delay(given: str) -> None:
    if not given.isdecimal():
        sys.exit(f"{given!r} is not a number of milliseconds. For two seconds: make lag MS=2000")
    url = os.environ.get("DATABASE_REPLICA_URLS", "").split(",")[0]
    if not url and (own := replica.for_development()):
        url = f"{own}/postgres"
    if not url:
        sys.exit(NONE_RUNS)
    try:
        asyncio.run(_delay(url, int(given)))
    except CANNOT_CONNECT as error:
        sys.exit(f"The replica cannot be delayed: {reason_of(error)}")
    print(f"The replica now applies each change {int(given)} ms late.")


async def _delay(url: str, milliseconds: int) -> None:
    async with postgres.connected(url) as connection:
        await connection.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{milliseconds}ms'")
        await connection.execute("SELECT pg_reload_conf()")


if __name__ == "__main__":
    main()
