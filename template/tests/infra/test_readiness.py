# Rung's file: advancing to another stage may change it.
"""Who is sent requests while a server that all copies depend on is away."""

import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.infra import health, readiness
from app.infra.failures import Unavailable
from tests.infra.conftest import Serve


class Warehouse:
    """A server that the copy depends on."""

    is_there = True

    async def check(self) -> None:
        if not self.is_there:
            raise Unavailable("the warehouse does not answer")


@pytest.fixture
def warehouse(bare: FastAPI, monkeypatch: pytest.MonkeyPatch) -> Warehouse:
    monkeypatch.setattr(readiness, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "LOOK_SECONDS_UNTIL_REACHED", 0.05)
    warehouse = Warehouse()
    health.add_readiness_check(bare, "warehouse", warehouse.check)
    return warehouse


async def until_it_says(client: AsyncClient, status: int, unavailable: list[str]) -> None:
    async with asyncio.timeout(10):
        while True:
            answer = await client.get("/ready")
            if answer.status_code == status and answer.json()["unavailable"] == unavailable:
                return
            await asyncio.sleep(0.02)


async def test_what_goes_away_is_told_and_takes_no_copy_with_it(
    bare: FastAPI, serve: Serve, warehouse: Warehouse
) -> None:
    async with serve(bare) as client:
        await until_it_says(client, 200, [])
        warehouse.is_there = False
        await until_it_says(client, 200, ["warehouse"])
        warehouse.is_there = True
        await until_it_says(client, 200, [])


async def test_a_copy_that_never_reached_what_it_depends_on_gets_no_traffic_until_it_does(
    bare: FastAPI, serve: Serve, warehouse: Warehouse
) -> None:
    warehouse.is_there = False
    async with serve(bare) as client:
        await until_it_says(client, 503, ["warehouse"])
        warehouse.is_there = True
        await until_it_says(client, 200, [])
