# Rung's file: advancing to another stage may change it.
"""Hold back what the replica applies, to see what the app makes of it."""

import asyncio
import os
import sys

import asyncpg


async def main(given: str) -> None:
    replica = os.environ.get("DATABASE_REPLICA_URLS", "").split(",")[0]
    if not replica:
        sys.exit("There is no replica: DATABASE_REPLICA_URLS is empty.")
    if not given.isdecimal():
        sys.exit(f"{given!r} is no number of milliseconds. For two seconds: make lag MS=2000")
    connection = await asyncpg.connect(replica)
    await connection.execute(f"ALTER SYSTEM SET recovery_min_apply_delay = '{int(given)}ms'")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    print(f"The replica now applies what it receives {int(given)} ms later.")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
