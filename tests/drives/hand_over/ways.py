"""A pytest plugin: each test of orders with one database, with two, and with crashes between two.

Each app that closes resumes what is owed, and then compares its two databases.
"""

import os
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any

import pytest
from app.infra.module_databases.crossing import elsewhere
from app.infra.module_databases.sessions import ModuleSessions, module_sessions
from dev.pytest_plugin import Services
from fastapi import FastAPI
from httpx import ASGITransport, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession

WAYS = ("one database", "two databases", "crashes")

# Before COMMIT here, after it, before COMMIT there, and after it.
POINTS = ("before", "begun", "done", "after")

PLACED = "SELECT id FROM orders WHERE owed IS NULL AND cancelled_at IS NULL"
RESERVED = "SELECT order_id FROM reservations WHERE prices IS NOT NULL AND put_back_at IS NULL"
OWED = "SELECT idempotency_key FROM orders WHERE owed IS NOT NULL"

CRASHED = 500

crash_at: ContextVar[str | None] = ContextVar("crash_at", default=None)
crashes: Counter[str] = Counter()  # by point


class CrashError(Exception):
    """The copy of the app ends here."""


def reach(point: str) -> None:
    if crash_at.get() == point:
        crash_at.set(None)
        crashes[point] += 1
        raise CrashError


@asynccontextmanager
async def crashing(write: AsyncSession, other: ModuleSessions) -> AsyncGenerator[AsyncSession]:
    reach("before")
    async with elsewhere(write, other) as theirs:
        reach("begun")
        yield theirs
        reach("done")
    reach("after")


def crash_at_crossings(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("app.orders.service.elsewhere", crashing)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    # Tests of a crash's leftovers create these themselves.
    if "two_databases" not in metafunc.fixturenames:
        makes_it = metafunc.module.__name__.endswith("hand_over")
        metafunc.parametrize("way", WAYS[:2] if makes_it else WAYS, indirect=True)


@pytest.fixture
def two_databases(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """Orders have a history of migrations, so the tests' services include their database."""
    assert os.environ["MODULE_ORDERS_DATABASE_URL"] != services.database_url
    be_patient("MODULE_ORDERS_DATABASE", monkeypatch)


def be_patient(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a crash is the only error."""
    for setting in ("CONNECT", "POOL_WAIT", "STATEMENT"):
        monkeypatch.setenv(f"{prefix}_{setting}_SECONDS", "120")


@pytest.fixture(autouse=True)
def way(request: pytest.FixtureRequest, services: Services, monkeypatch: pytest.MonkeyPatch) -> str:
    chosen: str = getattr(request, "param", WAYS[1])
    be_patient("DATABASE", monkeypatch)
    if chosen == WAYS[0]:
        monkeypatch.delenv("MODULE_ORDERS_DATABASE_URL")
    else:
        request.getfixturevalue("two_databases")
    if chosen == WAYS[2]:
        crash_at_crossings(monkeypatch)
        monkeypatch.setattr(ASGITransport, "handle_async_request", patient_client(count()))
    monkeypatch.setattr("app.orders.resume.install", check_at_end)
    return chosen


def patient_client(numbers: Iterator[int]) -> Callable[[Any, Request], Any]:
    """Each request ends in a crash: at the next of the points, or at one after the other. Then
    resume runs, and the client tries again."""
    answer = ASGITransport.handle_async_request

    async def handle(transport: Any, request: Request) -> Response:
        number = next(numbers)
        for point in POINTS if number % 2 else POINTS[number // 2 % 4 :][:1]:
            crash_at.set(point)
            answered: Response = await answer(transport, request)
            crash_at.set(None)
            if answered.status_code != CRASHED:
                return answered
        await resume(transport.app)
        return await answer(transport, request)

    return handle


async def resume(app: FastAPI) -> None:
    from app.orders.resume import resume

    await resume(app)


def check_at_end(app: FastAPI) -> None:
    around = app.router.lifespan_context

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with around(app):
            yield
            crash_at.set(None)
            await resume(app)
            await check(app)

    app.router.lifespan_context = lifespan


async def check(app: FastAPI) -> None:
    orders = module_sessions("orders").database(app).reader()
    owed = {row[0] for row in await orders.fetch(OWED)}
    assert owed <= {"broken"}, f"owed after resume: {owed}"
    placed = {row[0] for row in await orders.fetch(PLACED)}
    reserved = {row[0] for row in await app.state.database.reader().fetch(RESERVED)}
    assert placed == reserved, "an order without its reservation, or a reservation for no order"
