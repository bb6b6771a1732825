# Rung's file: advancing to another stage may change it.
"""Metrics, sent to a real receiver of OTLP. The last counts arrive when the app stops."""

import asyncio
import re
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.infra.database import ReadSession, WriteSession
from app.infra.logs import LogSettings, configure
from app.infra.telemetry.metrics import Histogram, Instrument, observe
from dev import postgres
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app, connected, until
from tests.infra.telemetry.otlp import Receiver

pytestmark = pytest.mark.usefixtures("services")

FILES = postgres.REPOSITORY / "deploy" / "telemetry"


@pytest.fixture
def receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "50")
    return receiver


def shop() -> FastAPI:
    """Uses the environment as it is."""
    app = bare_app()

    @app.get("/products/{product}")
    async def product(product: int) -> None: ...

    @app.get("/stuck")
    async def stuck() -> None:
        time.sleep(0.3)  # noqa: ASYNC251  # the fault that the test is about

    @app.get("/reads")
    async def reads(read: ReadSession) -> None:
        await read.fetch("SELECT pg_advisory_xact_lock_shared(20)")

    @app.get("/writes")
    async def writes(write: WriteSession) -> None:
        await write.execute(text("SELECT pg_advisory_xact_lock_shared(20)"))

    return app


@asynccontextmanager
async def held_back(services: Services) -> AsyncGenerator[None]:
    """Makes the shop's reads and writes wait until the block ends."""
    async with connected(services.database_url) as connection:
        await connection.execute("SELECT pg_advisory_lock(20)")
        yield


async def test_requests_are_counted_by_route_method_and_status(
    receiver: Receiver, serve: Serve
) -> None:
    async with serve(shop()) as client:
        for product in ("1", "2", "tray", "../etc"):
            await client.get(f"/products/{product}")

    get = {"http.request.method": "GET", "url.scheme": "https"}
    product_route = {"http.route": "/products/{product}"}
    assert receiver.points("http.server.request.duration") == [
        ({**get, **product_route, "http.response.status_code": 200}, 2),
        ({**get, **product_route, "http.response.status_code": 422}, 1),
        ({**get, "http.response.status_code": 404}, 1),
    ]


async def test_a_duration_is_counted_in_seconds_in_its_bucket(
    receiver: Receiver, serve: Serve
) -> None:
    async with serve(shop()) as client:
        await client.get("/stuck")

    [point] = receiver.metrics["http.server.request.duration"].histogram.data_points
    assert receiver.metrics["http.server.request.duration"].unit == "s"
    bounds = [0, *point.explicit_bounds, float("inf")]
    [bucket] = [
        pair for pair, count in zip(pairwise(bounds), point.bucket_counts, strict=True) if count
    ]
    assert bucket[0] < point.sum <= bucket[1]
    assert point.sum >= 0.3


@pytest.mark.slow
async def test_a_blocked_event_loop_shows_as_a_delay(receiver: Receiver, serve: Serve) -> None:
    async with serve(shop()) as client:
        await asyncio.sleep(0.15)
        await client.get("/stuck")
        await asyncio.sleep(0.15)

    [point] = receiver.metrics["asyncio.event_loop.delay"].histogram.data_points
    late = sum(
        count
        for bound, count in zip([*point.explicit_bounds, 99], point.bucket_counts, strict=True)
        if bound > 0.1
    )
    assert late >= 1


@pytest.mark.parametrize("pool", ["reads", "writes"])
async def test_a_pool_shows_its_used_connections_and_its_waiting_requests(
    services: Services, receiver: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    monkeypatch.setenv("DATABASE_READ_POOL", "2")
    monkeypatch.setenv("DATABASE_WRITE_POOL", "2")
    named: dict[str, str | int] = {
        "db.system.name": "postgresql",
        "db.client.connection.pool.name": pool,
    }
    async with serve(shop()) as client, asyncio.TaskGroup() as requests, held_back(services):
        for _ in range(4):
            requests.create_task(client.get(f"/{pool}"))
        await until(lambda: (named, 2) in receiver.points("db.client.connection.pending_requests"))
        used = named | {"db.client.connection.state": "used"}
        await until(lambda: (used, 2) in receiver.points("db.client.connection.count"))

    assert (named, 2) in receiver.points("db.client.connection.max")
    assert (named, 0) in receiver.points("db.client.connection.pending_requests")


async def test_a_metric_that_cannot_be_read_is_logged_and_the_others_are_sent(
    receiver: Receiver, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    app = shop()
    observe(app, Instrument("shop.tills", "{till}", "Open tills", "gauge", read=lambda: 1 / 0))  # type: ignore[arg-type,return-value]
    configure(LogSettings())  # again, now that pytest has put its own stdout in place
    async with serve(app) as client:
        await until(lambda: "shop.tills" in capsys.readouterr().out)
        await client.get("/products/1")

    [(_, count)] = receiver.points("http.server.request.duration")
    assert count == 1


@pytest.mark.usefixtures("receiver")
async def test_dashboards_and_alerts_use_only_metrics_that_are_sent(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_URL", "redis://127.0.0.1:1/0")
    app = shop()
    async with serve(app):
        sent = {name for instrument in app.state.instruments for name in in_prometheus(instrument)}

    asked = set()
    for file in (*FILES.rglob("*dashboard.json"), *FILES.rglob("*alerts.yaml")):
        asked |= set(
            re.findall(
                r"(?<![.\w])((?:http|db|cache|asyncio|otel)_\w+)(?=[\[{\s])", file.read_text()
            )
        )
    assert "http_server_request_duration_seconds_bucket" in asked
    assert asked - sent == set()


def in_prometheus(instrument: Instrument | Histogram[Any]) -> list[str]:
    """The names that Prometheus gives to what it receives over OTLP."""
    name = instrument.name.replace(".", "_") + ("_seconds" if instrument.unit == "s" else "")
    if isinstance(instrument, Histogram):
        return [f"{name}_bucket", f"{name}_count", f"{name}_sum"]
    return [f"{name}_total" if instrument.kind == "counter" else name]
