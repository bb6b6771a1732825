# Rung's file: advancing to another stage may change it.
"""Fixtures: copies of two neighbouring steps of the move serve at once, and stores go away."""

from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack

import asyncpg
import pytest
from fastapi import FastAPI

from app.infra.redis_sessions.move import __main__ as move
from app.infra.redis_sessions.settings import Step
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import connected
from tests.infra.redis_sessions.move.people import is_logged_in
from tests.infra.test_sessions import session_app

IN_BOTH = (Step.WRITE_BOTH, Step.REDIS_THEN_POSTGRES, Step.REDIS_FIRST)

type At = Callable[[Step], FastAPI]
type Backfill = Callable[[str], Coroutine[None, None, None]]


@pytest.fixture
def server(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> Valkey:
    monkeypatch.setenv("LOG_LEVEL", "ERROR")
    return server


@pytest.fixture
async def postgres(services: Services) -> AsyncGenerator[asyncpg.Connection]:
    async with connected(services.database_url) as connection:
        yield connection


@pytest.fixture
async def at(server: Valkey, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[At]:
    """Yields a copy of the app for each step."""
    async with AsyncExitStack() as stack:
        apps = {}
        for step in Step:
            monkeypatch.setenv("SESSION_STORE", step)
            apps[step] = session_app()
            await stack.enter_async_context(apps[step].router.lifespan_context(apps[step]))
        yield apps.__getitem__


@pytest.fixture
def backfill(monkeypatch: pytest.MonkeyPatch) -> Backfill:
    async def backfill(direction: str) -> None:
        step = Step.WRITE_BOTH if direction == "to-redis" else Step.REDIS_FIRST
        monkeypatch.setenv("SESSION_STORE", step)
        await move.main(direction)

    return backfill


async def whoever_knows(token: str, at: At, step: Step) -> list[Step]:
    """The copies of neighbouring steps that accept the token as a session."""
    steps = list(Step)
    place = steps.index(step)
    neighbours = steps[max(place - 1, 0) : place + 2]
    return [neighbour for neighbour in neighbours if await is_logged_in(at(neighbour), token)]
