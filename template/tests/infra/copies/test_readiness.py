# Rung's file: advancing to another stage may change it.
"""Tests which copies are ready while a server that all of them depend on is away."""

import asyncio

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.infra import health
from app.infra.copies import readiness
from app.infra.failures import Unavailable
from dev import ports
from dev.cache import valkey
from dev.pytest_plugin import Services
from dev.s3 import rclone
from tests.infra.conftest import Serve, bare_app, until


class Warehouse:
    """A server that the copy depends on."""

    is_there = True
    is_broken = False

    async def check(self) -> None:
        if self.is_broken:
            raise ZeroDivisionError
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
    async def says_it() -> bool:
        answer = await client.get("/ready")
        return answer.status_code == status and answer.json()["unavailable"] == unavailable

    await until(says_it)


async def test_a_copy_reports_a_lost_server_and_stays_ready(
    bare: FastAPI, serve: Serve, warehouse: Warehouse
) -> None:
    async with serve(bare) as client:
        await until_it_says(client, 200, [])
        warehouse.is_there = False
        await until_it_says(client, 200, ["warehouse"])
        warehouse.is_there = True
        await until_it_says(client, 200, [])


async def test_a_copy_gets_no_traffic_until_it_has_reached_its_servers(
    bare: FastAPI, serve: Serve, warehouse: Warehouse
) -> None:
    warehouse.is_there = False
    async with serve(bare) as client:
        await until_it_says(client, 503, ["warehouse"])
        warehouse.is_there = True
        await until_it_says(client, 200, [])


async def test_a_check_that_raises_counts_as_failed_and_runs_again(
    bare: FastAPI, serve: Serve, warehouse: Warehouse
) -> None:
    async with serve(bare) as client:
        await until_it_says(client, 200, [])
        warehouse.is_broken = True
        await until_it_says(client, 200, ["warehouse"])
        warehouse.is_broken = False
        await until_it_says(client, 200, [])


async def test_when_a_later_start_fails_the_checks_stop() -> None:
    app = FastAPI()
    health.add_readiness_check(app, "warehouse", Warehouse().check)
    before = asyncio.all_tasks()

    with pytest.raises(ZeroDivisionError):
        async with readiness.lifespan(app):
            raise ZeroDivisionError

    assert asyncio.all_tasks() == before


@pytest.mark.parametrize(
    ("variable", "wrong", "name"),
    [
        ("SESSION_REDIS_URL", "redis://127.0.0.1:{unused}", "sessions"),
        ("FILES_S3_ENDPOINT", "http://127.0.0.1:{unused}", "files"),
        ("FILES_BUCKET", "nobody-made-it", "files"),
    ],
)
@pytest.mark.usefixtures("services")
async def test_a_copy_with_a_wrong_address_gets_no_traffic(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, variable: str, wrong: str, name: str
) -> None:
    monkeypatch.setenv(variable, wrong.format(unused=ports.unused()))

    async with serve(bare_app()) as client:
        await until_it_says(client, 503, [name])


@pytest.mark.slow
async def test_a_copy_stays_ready_while_redis_and_s3_are_away(
    services: Services, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readiness, "LOOK_SECONDS", 0.05)
    with valkey.running("sessions") as redis, rclone.running() as bucket:
        for variable, value in {**bucket.variables(), "SESSION_REDIS_URL": redis.url}.items():
            monkeypatch.setenv(variable, value)
        async with serve(bare_app()) as client:
            await until_it_says(client, 200, [])
            redis.die()
            bucket.die()
            await until_it_says(client, 200, ["sessions", "files"])
            redis.start()
            bucket.start()
            await until_it_says(client, 200, [])
