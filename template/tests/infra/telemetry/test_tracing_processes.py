# Rung's file: advancing to another stage may change it.
"""One trace through two services, each in its own process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from fastapi import FastAPI

from app.infra.database import ReadSession
from dev import ports, postgres
from tests.infra.conftest import bare_app
from tests.infra.telemetry.otlp import Receiver

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("services")]


def kitchen() -> FastAPI:
    app = bare_app()

    @app.get("/dishes/{dish}")
    async def cook(dish: str, read: ReadSession) -> None:
        await read.fetch("SELECT $1::text FROM pg_class LIMIT 1", dish)

    return app


def restaurant() -> FastAPI:
    app = bare_app()

    @app.get("/orders/{dish}")
    async def order(dish: str) -> int:
        async with httpx.AsyncClient(base_url=os.environ["KITCHEN_URL"]) as client:
            return (await client.get(f"/dishes/{dish}")).status_code

    return app


@contextmanager
def process(name: str, **environment: str) -> Iterator[tuple[str, "subprocess.Popen[bytes]"]]:
    """A service of this module, and its URL."""
    port = ports.unused()
    running = subprocess.Popen(
        [
            *(sys.executable, "-m", "uvicorn", f"{__name__}:{name}", "--factory"),
            *("--port", str(port), "--log-level", "warning"),
        ],
        cwd=postgres.REPOSITORY,
        env={**os.environ, "OTEL_SERVICE_NAME": name, **environment},
    )
    try:
        yield f"http://127.0.0.1:{port}", running
    finally:
        running.terminate()
        running.wait()


def got(url: str) -> httpx.Response:
    """Waits until the process listens."""
    for _ in range(600):
        try:
            return httpx.get(url)
        except httpx.TransportError:
            time.sleep(0.05)
    return pytest.fail("It did not start.")


def test_a_request_to_another_service_is_one_trace(receiver: Receiver) -> None:
    with (
        process("kitchen", OTEL_TRACES_SAMPLER="parentbased_always_off") as (kitchen_url, _),
        process("restaurant", OTEL_TRACES_SAMPLER="always_on", KITCHEN_URL=kitchen_url) as (url, _),
    ):
        got(f"{kitchen_url}/live")
        got(f"{url}/orders/soup").raise_for_status()

    order = receiver.span("GET /orders/{dish}")
    [call] = receiver.children(order)
    [cook] = receiver.children(call)
    [sql] = receiver.children(cook)
    assert [(span.service, span.name, span.kind) for span in (order, call, cook, sql)] == [
        ("restaurant", "GET /orders/{dish}", "SERVER"),
        ("restaurant", "GET", "CLIENT"),
        ("kitchen", "GET /dishes/{dish}", "SERVER"),
        ("kitchen", "SELECT pg_class", "CLIENT"),
    ]
    assert len({span.trace_id for span in (order, call, cook, sql)}) == 1
    assert call.attributes["http.response.status_code"] == 200
    assert "soup" not in repr((order, call, cook, sql))


def test_a_process_ends_in_time_while_the_receiver_hangs(receiver: Receiver) -> None:
    patient = {"OTEL_TRACES_SAMPLER": "always_on", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    with process("kitchen", **patient) as (url, running):
        receiver.hang()
        got(f"{url}/dishes/soup")
        running.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        running.wait(timeout=120)

    assert time.monotonic() - begun < 30
