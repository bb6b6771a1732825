# Rung's file: advancing to another stage may change it.
"""Metrics of requests, of the event loop and of Postgres' pools.

deploy/telemetry/ shows them and raises alerts on them.
"""

from fastapi import FastAPI

from app.infra.database import Pools
from app.infra.telemetry.metrics import Histogram, Instrument
from app.infra.telemetry.requests import RequestKey, request_attributes
from app.infra.telemetry.tracing import Attributes

# Buckets of OpenTelemetry's conventions.
REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
DELAY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


def of_requests() -> Histogram[RequestKey]:
    what = "How long requests took, until their whole answer was sent"
    name = "http.server.request.duration"
    return Histogram(name, "s", what, REQUEST_SECONDS, request_attributes)


def of_event_loop() -> Histogram[None]:
    """The loop is as late as its longest step. app/infra/process_log.py samples it."""
    what = "How late the event loop runs what is due"
    return Histogram("asyncio.event_loop.delay", "s", what, DELAY_SECONDS, lambda _: {})


def of_pools(app: FastAPI) -> list[Instrument]:
    pools: Pools = app.state.pools
    return [
        Instrument(
            "db.client.connection.count",
            "{connection}",
            "Connections of a pool, used and idle",
            "gauge",
            lambda: [
                (number, {**_of_pool(name), "db.client.connection.state": state})
                for name, pool in pools().items()
                for number, state in ((pool.idle, "idle"), (pool.used, "used"))
            ],
        ),
        Instrument(
            "db.client.connection.max",
            "{connection}",
            "How many connections a pool may have",
            "gauge",
            lambda: [(pool.most, _of_pool(name)) for name, pool in pools().items()],
        ),
        Instrument(
            "db.client.connection.pending_requests",
            "{request}",
            "Requests that wait for a connection of a pool",
            "gauge",
            lambda: [(pool.waiting, _of_pool(name)) for name, pool in pools().items()],
        ),
    ]


def _of_pool(name: str) -> Attributes:
    return {"db.system.name": "postgresql", "db.client.connection.pool.name": name}
