"""Makes an account staff: `python -m app.accounts.promote ada@example.com`."""

import asyncio
import sys

from app.accounts import service
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database


async def main(email: str) -> None:
    async with (
        Database(environment.read(DatabaseSettings)) as database,
        database.transaction() as write,
    ):
        if not await service.promote(write, email):
            sys.exit(f"There is no account {email}: it has to register first.")
    print(f"{email} is staff now.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say who: python -m app.accounts.promote EMAIL")
    asyncio.run(main(sys.argv[1]))
