from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, create_ssl_context

from app.main import create_app
from dev.pytest_plugin import Services

TLS = create_ssl_context()

type LogIn = Callable[[str], Awaitable[AsyncClient]]


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def app(services: Services) -> AsyncGenerator[FastAPI]:
    app = create_app()
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    async with calling(app) as client:
        yield client


@pytest.fixture
async def log_in(app: FastAPI) -> AsyncGenerator[LogIn]:
    """Registers a person; answers with a client that carries her token and keeps no cookie."""
    async with AsyncExitStack() as stack:

        async def log_in(name: str) -> AsyncClient:
            client = await stack.enter_async_context(calling(app))
            person = {"name": name, "password": "a password for tests"}
            assert (await client.post("/people", json=person)).status_code == 201
            started = await client.post("/tokens", json=person)
            assert "set-cookie" not in started.headers
            client.headers["authorization"] = f"Bearer {started.json()['token']}"
            return client

        yield log_in


def calling(app: FastAPI) -> AsyncClient:
    return AsyncClient(transport=ASGITransport(app), base_url="https://gazette.test", verify=TLS)
