"""Lets an account log in again after too many guesses: `python -m app.accounts.unlock EMAIL`."""

import asyncio
import sys

from app.accounts import service, throttle
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import ends_in_words


async def main(email: str) -> None:
    async with (
        Database(environment.read(DatabaseSettings)) as database,
        database.transaction() as write,
    ):
        account = await service.account_called(write, email)
        if account is None:
            sys.exit(f"There is no account {email}.")
        await throttle.unlock(write, account.email)
        service.log_when_stored(write, "unlocked", account.id)
    print(f"{email} can log in again.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the account's e-mail: python -m app.accounts.unlock EMAIL")
    with ends_in_words():
        asyncio.run(main(sys.argv[1]))
