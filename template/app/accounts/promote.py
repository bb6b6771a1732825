"""Gives or revokes staff rights: `python -m app.accounts.promote EMAIL [--revoke]`."""

import argparse
import asyncio
import sys

from app.accounts import service
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import ends_in_words


async def main(email: str, *, revoke: bool = False) -> None:
    async with (
        Database(environment.read(DatabaseSettings)) as database,
        database.transaction() as write,
    ):
        if not await service.promote(write, email, is_staff=not revoke):
            sys.exit(f"There is no account {email}. Register it first.")
    print(f"{email} is {'no longer staff' if revoke else 'staff now'}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m app.accounts.promote", description=__doc__)
    parser.add_argument("email", metavar="EMAIL")
    parser.add_argument("--revoke", action="store_true", help="revoke the account's staff rights")
    given = parser.parse_args()
    with ends_in_words():
        asyncio.run(main(given.email, revoke=given.revoke))
