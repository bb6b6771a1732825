"""Ends the login sessions of an account on all devices: `python -m app.accounts.log_out EMAIL`."""

import asyncio
import sys

from app.accounts import service
from app.infra.failures import ends_in_words
from app.main import create_app


async def main(email: str) -> None:
    app = create_app()
    async with app.router.lifespan_context(app), app.state.database.transaction() as write:
        account = await service.account_called(write, email)
        if account is None:
            sys.exit(f"There is no account {email}.")
        await app.state.session_store.end_all(write, account.id)
        service.log_when_stored(write, "logged_out_everywhere", account.id)
    print(f"{email} is logged out everywhere.")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give the account's e-mail: python -m app.accounts.log_out EMAIL")
    with ends_in_words():
        asyncio.run(main(sys.argv[1]))
