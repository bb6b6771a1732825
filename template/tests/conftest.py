import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack

import argon2
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, create_ssl_context
from sqlalchemy import text

from app.accounts import passwords
from app.accounts import service as accounts
from app.infra.database import Database
from app.main import create_app
from dev.pytest_plugin import Services

PASSWORD = "correct horse battery staple"

WAITING_FOR_A_LOCK = """SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'"""

# Shared, because reading the certificate authorities takes 15 ms.
TLS = create_ssl_context()

# A strong hash takes 14 ms, and most tests need several.
QUICK_HASHER = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)

type LogIn = Callable[[str], Awaitable[AsyncClient]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def quick_hashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "strong_hashes" not in request.fixturenames:
        monkeypatch.setattr(passwords, "HASHER", QUICK_HASHER)


@pytest.fixture
def strong_hashes() -> None:
    """For tests of the hashes: passwords are hashed as in production."""


@pytest.fixture
async def app(services: Services) -> AsyncGenerator[FastAPI]:
    """The whole app, on an empty database for this test."""
    app = create_app()
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
def database(app: FastAPI) -> Database:
    database: Database = app.state.database
    return database


@pytest.fixture
async def client(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """A visitor who is not logged in."""
    async with browser(app) as client:
        yield client


@pytest.fixture
async def log_in(app: FastAPI) -> AsyncGenerator[LogIn]:
    """Registers a person and returns their own browser, logged in."""
    async with AsyncExitStack() as stack:

        async def log_in(name: str) -> AsyncClient:
            client = await stack.enter_async_context(browser(app))
            person = {"email": f"{name}@example.com", "password": PASSWORD}
            assert (await client.post("/accounts", json=person)).status_code == 201
            return client

        yield log_in


@pytest.fixture
async def ada(log_in: LogIn) -> AsyncClient:
    return await log_in("ada")


@pytest.fixture
async def grace(log_in: LogIn) -> AsyncClient:
    return await log_in("grace")


@pytest.fixture
async def staff(log_in: LogIn, database: Database) -> AsyncClient:
    client = await log_in("staff")
    async with database.transaction() as write:
        assert await accounts.promote(write, "staff@example.com")
    return client


def browser(app: FastAPI) -> AsyncClient:
    # The app answers at shop.test only. A link to another host leads to the real host.
    return AsyncClient(
        mounts={"all://shop.test": ASGITransport(app)}, base_url="https://shop.test", verify=TLS
    )


@pytest.fixture
async def open_connections(database: Database) -> None:
    """For tests of concurrent requests: otherwise the first of them would be answered before
    the others have connected."""

    async def use_one() -> None:
        async with database.transaction() as write:
            await write.execute(text("SELECT pg_sleep(0.01)"))
        await database.reader().fetch("SELECT pg_sleep(0.01)")

    await asyncio.gather(*(use_one() for _ in range(6)))
