# Rung's file: advancing to another stage may change it.
"""An app without business, for the tests of app/infra."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from inspect import isawaitable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, create_ssl_context

from app import errors
from app.infra import wiring
from dev import postgres
from dev.pytest_plugin import Services

# Shared, because reading the certificate authorities takes 15 ms.
TLS = create_ssl_context()

type Serve = Callable[[FastAPI], AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
def bare(services: Services) -> FastAPI:
    """This stage's infrastructure without business. A test adds the routes that it needs."""
    return bare_app()


def bare_app() -> FastAPI:
    """An app with the settings of the environment."""
    app = FastAPI(**wiring.OPTIONS)
    errors.install(app)
    wiring.install(app)
    return app


@pytest.fixture
def serve() -> Serve:
    """Starts an app and returns a client of it."""

    @asynccontextmanager
    async def serve(app: FastAPI) -> AsyncGenerator[AsyncClient]:
        async with app.router.lifespan_context(app), browser(app) as client:
            yield client

    return serve


@pytest.fixture
async def client(app: FastAPI, serve: Serve) -> AsyncGenerator[AsyncClient]:
    """A client of `app`, a fixture that a module or folder of tests has."""
    async with serve(app) as client:
        yield client


def browser(app: FastAPI) -> AsyncClient:
    return AsyncClient(
        mounts={"all://shop.test": ASGITransport(app)}, base_url="https://shop.test", verify=TLS
    )


@pytest.fixture
def postgres_ends_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process gives up a second later than Postgres: on a busy machine that may be too soon."""
    connect = asyncpg.connect

    async def connect_with_patience(*arguments: Any, **options: Any) -> asyncpg.Connection:
        return await connect(*arguments, **options | {"command_timeout": 300})

    monkeypatch.setattr(asyncpg, "connect", connect_with_patience)


async def until(look: Callable[[], Any]) -> Any:
    """Looks again until it finds something, and returns it."""
    async with asyncio.timeout(300):
        while True:
            found = look()
            if isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(0.01)


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def execute_sql(url: str, statements: str) -> None:
    async with connected(url) as connection:
        await connection.execute(statements)


async def fetch_value(url: str, statement: str, *arguments: object) -> Any:
    async with connected(url) as connection:
        return await connection.fetchval(statement, *arguments)


def run_python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """At the top of the repository, unless `cwd` says otherwise."""
    command = [sys.executable, *arguments]
    options = {"cwd": postgres.REPOSITORY} | options
    return subprocess.run(command, capture_output=True, text=True, **options)


def children(pid: int) -> list[int]:
    """The processes that it has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children")
    if listed.exists():
        return [int(child) for child in listed.read_text().split()]
    command = ["pgrep", "-P", str(pid)]  # macOS has no /proc
    found = subprocess.run(command, capture_output=True, text=True)
    return [int(child) for child in found.stdout.split()]
