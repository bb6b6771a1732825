# Rung's file: advancing to another stage may change it.
"""Fixtures: a Valkey for the sessions of one test, and a person who is logged in."""

from collections.abc import AsyncGenerator, Iterator
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from dev.cache import valkey
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve
from tests.infra.test_sessions import session_app

ADA = uuid4()


@pytest.fixture
def server(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    """A Valkey for this test alone."""
    with valkey.running("sessions") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)
        yield server


@pytest.fixture
def shop(server: Valkey) -> FastAPI:
    return session_app()


@pytest.fixture
async def ada(shop: FastAPI, serve: Serve) -> AsyncGenerator[AsyncClient]:
    async with serve(shop) as client:
        await client.post(f"/login/{ADA}")
        yield client
