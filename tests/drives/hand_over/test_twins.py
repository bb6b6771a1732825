"""With two databases: requests for one order that meet at the worst moment, and many at random."""

import asyncio
import random
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
from tests.test_orders import order, stock

from hand_over.ways import CRASHED, POINTS, crash_at, crashing, resume
from tests.conftest import LogIn

pytestmark = pytest.mark.usefixtures("two_databases")

KEY = "one-and-only"
DELIVER = text("UPDATE products SET stock = stock + 1 WHERE id = :id")


async def test_a_refused_twin_takes_nothing_from_the_other(
    ada: AsyncClient,
    staff: AsyncClient,
    app: FastAPI,
    lamp: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
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
    await asyncio.wait_for(refused.wait(), 60)
    await staff.patch(f"/products/{lamp['id']}", json={"stock": 1})
    monkeypatch.setattr("app.orders.service.elsewhere", crashing)
    crash_at.set("after")
    second = await order(ada, {lamp["id"]: 1}, KEY)
    second_is_gone.set()

    assert ((await first).status_code, second.status_code) == (409, CRASHED)
    crash_at.set(None)
    await resume(app)
    assert await stock(ada, lamp) == 1
    assert (await ada.get("/orders")).json()["orders"] == []


async def test_nothing_is_oversold_lost_or_doubled(
    log_in: LogIn,
    staff: AsyncClient,
    app: FastAPI,
    lamp: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Scarce stock, twins with one key, cancelled orders, restocking, and a crash in every third
    request."""
    monkeypatch.setattr("app.orders.service.elsewhere", crashing)
    buyers = [await log_in(f"buyer{n}") for n in range(4)]
    rng = random.Random(7)  # noqa: S311
    acknowledged: dict[str, str] = {}
    delivered = lamp["stock"]

    async def buy(buyer: AsyncClient, key: str, point: str | None, cancel: bool) -> None:
        crash_at.set(point)
        placed = await order(buyer, {lamp["id"]: 1}, key)
        assert placed.status_code in {201, 409, CRASHED}
        assert placed.status_code != CRASHED or point
        if placed.status_code == 201:
            assert acknowledged.setdefault(key, placed.json()["id"]) == placed.json()["id"]
            if cancel:
                await buyer.post(f"/orders/{placed.json()['id']}/cancellation")

    for turn in range(12):
        requests = []
        for n, buyer in enumerate(buyers):
            key = f"turn{turn}-of-buyer{n}"
            for _ in range(rng.choice((1, 2))):
                point = rng.choice((*POINTS, *(None,) * 8))
                requests.append(buy(buyer, key, point, rng.random() < 0.3))
        more = asyncio.create_task(deliver(app, lamp["id"]))
        await asyncio.gather(*requests, more, resume(app))
        delivered += 1
    crash_at.set(None)
    await resume(app)

    orders = [
        one for buyer in buyers for one in (await buyer.get("/orders?limit=100")).json()["orders"]
    ]
    assert set(acknowledged.values()) <= {one["id"] for one in orders}
    assert all(len(one["items"]) == 1 for one in orders)
    sold = sum(one["cancelled_at"] is None for one in orders)
    assert await stock(staff, lamp) + sold == delivered


async def deliver(app: FastAPI, product_id: str) -> None:
    async with app.state.database.transaction() as write:
        await write.execute(DELIVER, {"id": product_id})
