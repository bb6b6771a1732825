"""With two databases: requests for one order that meet at the worst moment, and many at random."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from app.infra.module_databases.crossing import elsewhere
from app.infra.module_databases.sessions import ModuleSessions
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from tests.test_orders import lamp as lamp
from tests.test_orders import mug as mug
from tests.test_orders import order, stock

from hand_over.market import LEDGER, Market, refusals_forgotten
from hand_over.ways import CRASHED, check, crash_at, crash_at_crossings, resume
from tests.conftest import LogIn

pytestmark = pytest.mark.usefixtures("two_databases")

KEY = "one-and-only"


async def test_a_refused_twin_takes_nothing_from_the_other(
    ada: AsyncClient,
    staff: AsyncClient,
    app: FastAPI,
    lamp: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await refused_then_reserved(ada, staff, lamp, monkeypatch)
    await resume(app)

    assert await stock(ada, lamp) == 1
    assert (await ada.get("/orders")).json()["orders"] == []


async def test_without_a_record_of_the_refusal_the_check_fails(
    ada: AsyncClient,
    staff: AsyncClient,
    app: FastAPI,
    lamp: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with refusals_forgotten():
        await refused_then_reserved(ada, staff, lamp, monkeypatch)
    await resume(app)

    assert await stock(ada, lamp) == 0
    assert (await ada.get("/orders")).json()["orders"] == []
    with pytest.raises(AssertionError, match="a reservation for no order"):
        await check(app)
    async with app.state.database.transaction() as write:
        await write.execute(text("DELETE FROM reservations"))  # each app is checked at its end


async def refused_then_reserved(
    ada: AsyncClient, staff: AsyncClient, lamp: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is refused. Before it can note that, stock arrives, and the second one asks."""
    refused, second_is_gone = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def slow(write: AsyncSession, other: ModuleSessions) -> AsyncGenerator[AsyncSession]:
        async with elsewhere(write, other) as theirs:
            yield theirs
        refused.set()
        await second_is_gone.wait()

    sold_out = {"stock": 0}
    await staff.patch(f"/products/{lamp['id']}", json=sold_out)
    monkeypatch.setattr("app.orders.service.elsewhere", slow)
    first = asyncio.create_task(order(ada, {lamp["id"]: 1}, KEY))
    await asyncio.wait_for(refused.wait(), 300)
    await staff.patch(f"/products/{lamp['id']}", json={"stock": 1})
    crash_at_crossings(monkeypatch)
    crash_at.set("after")
    second = await order(ada, {lamp["id"]: 1}, KEY)
    second_is_gone.set()

    assert ((await first).status_code, second.status_code) == (409, CRASHED)
    crash_at.set(None)


async def test_nothing_is_oversold_lost_or_doubled(
    log_in: LogIn,
    app: FastAPI,
    mug: dict[str, Any],
    lamp: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """For minutes, with servers that are killed: chaos.py."""
    crash_at_crossings(monkeypatch)
    async with app.state.database.transaction() as write:
        await write.execute(text(LEDGER))
    market = Market([app], [mug, lamp], crashes=0.1, sweeps_within_seconds=0.5, seed=7)

    await market.trade([await log_in(f"buyer{n}") for n in range(4)], lambda: range(12))

    assert await market.violations() == []
    assert market.acknowledged > 5
    assert market.counts["out of stock"] > 0
    assert market.counts["crashes"] > 5
