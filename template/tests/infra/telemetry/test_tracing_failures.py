# Rung's file: advancing to another stage may change it.
"""The receiver is away, or hangs: requests do not notice, and nothing grows."""

import json
import time

import pytest
from fastapi import FastAPI

from app.infra.logs import LogSettings, configure
from app.infra.telemetry import telemetry
from dev import ports
from tests.infra.conftest import Serve, bare_app
from tests.infra.telemetry.otlp import Receiver

pytestmark = pytest.mark.usefixtures("services")

REQUESTS = 500
# One request in eight fills a batch. If it waited for the receiver, p95 would show it.
QUEUE, BATCH = 64, 8


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "FLUSH_SECONDS", 0.5)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", str(QUEUE))
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", str(BATCH))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    # Short, so that no thread retries long after its test.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")


@pytest.fixture
def hung(receiver: Receiver) -> Receiver:
    receiver.hang()
    return receiver


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{ports.unused()}")


def greeter() -> FastAPI:
    """Uses the environment as it is."""
    app = bare_app()

    @app.get("/hello")
    async def hello() -> None: ...

    return app


async def greeted(app: FastAPI, serve: Serve) -> list[float]:
    """The durations of many requests in order, the slowest last."""
    seconds = []
    async with serve(app) as client:
        for _ in range(REQUESTS):
            begun = time.perf_counter()
            assert (await client.get("/hello")).status_code == 200
            seconds.append(time.perf_counter() - begun)
    return sorted(seconds)


@pytest.mark.usefixtures("away")
async def test_requests_stay_quick_while_the_receiver_is_away(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    seconds = await greeted(greeter(), serve)

    assert seconds[int(REQUESTS * 0.95)] < 1


@pytest.mark.slow
async def test_requests_stay_quick_while_the_receiver_hangs(
    hung: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2")
    seconds = await greeted(greeter(), serve)

    assert hung.asked > 0
    assert seconds[int(REQUESTS * 0.95)] < 1


async def test_the_queue_for_a_receiver_that_hangs_is_bounded(
    hung: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telemetry, "FLUSH_SECONDS", 5)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    app = greeter()
    async with serve(app) as client:
        for _ in range(REQUESTS):
            await client.get("/hello")
        hung.answers.set()

    # Spans in the queue, and in the batch being sent. Each span is counted.
    assert QUEUE <= len(hung.spans) <= QUEUE + BATCH
    assert hung.points("otel.sdk.span.ended") == [({}, REQUESTS)]


@pytest.mark.slow
@pytest.mark.usefixtures("hung")
async def test_the_app_stops_in_time_while_the_receiver_hangs(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "10")
    async with serve(greeter()) as client:
        await client.get("/hello")
        begun = time.monotonic()

    assert time.monotonic() - begun < 9


@pytest.mark.usefixtures("away")
async def test_the_log_names_a_receiver_that_is_away_once_and_not_at_each_attempt(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    app = greeter()
    configure(LogSettings())  # again, now that pytest has put its own stdout in place
    await greeted(app, serve)

    logged = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    said = [line["event"] for line in logged if line["event"] != "request"]
    assert any(line.startswith("Failed to export spans") for line in said)
    assert len(said) <= 5
