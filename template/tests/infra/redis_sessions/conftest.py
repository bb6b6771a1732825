# Rung's file: advancing to another stage may change it.
"""Fixtures: a Valkey for the sessions of one test, and a person who is logged in."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from dev.cache import valkey
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import until
from tests.infra.test_sessions import ADA, session_app, who


@pytest.fixture
def server(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A Valkey for this test alone."""
    with valkey.running("sessions") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)
        yield server


@pytest.fixture
def app(server: Valkey) -> FastAPI:
    return session_app()


@pytest.fixture
async def ada(client: AsyncClient) -> AsyncClient:
    await client.post(f"/login/{ADA}")
    return client


@contextmanager
def hanging(server: Valkey, app: FastAPI) -> Iterator[None]:
    """The app waits half a second for Redis while it hangs. Before and after that the app has more
    time, because an answer may be late on a busy machine."""
    store = app.state.session_redis
    patience, store._seconds = store._seconds, 0.5
    server.hang()
    try:
        yield
    finally:
        store._seconds = patience
        server.go_on()


async def when_it_answers(client: AsyncClient) -> Any:
    async def answer() -> str | int | None:
        found = await who(client)
        return found if found != 503 else None

    return await until(answer)
