# Rung's file: advancing to another stage may change it.
"""Metrics of the replicas, sent to a real receiver of OTLP."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.infra.database import ReadSession
from tests.infra.conftest import Serve, bare_app
from tests.infra.replicas.replication import Server, cluster
from tests.infra.telemetry.otlp import Receiver


@pytest.fixture
def replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with cluster(f"rung-metrics-{tmp_path.name}") as servers:
        replica = servers.replica()
        monkeypatch.setenv("DATABASE_URL", servers.primary.url)
        monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
        monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
        monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
        yield replica


async def test_a_replica_shows_its_reads_and_its_lag(
    receiver: Receiver, replica: Server, serve: Serve
) -> None:
    app = bare_app()

    @app.get("/port")
    async def port(read: ReadSession) -> int:
        [[port]] = await read.fetch("SELECT inet_server_port()")
        return int(port)

    async with serve(app) as client, asyncio.timeout(300):
        while (await client.get("/port")).json() != replica.port:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        for _ in range(4):
            await client.get("/port")

    named = {"server.address": f"127.0.0.1:{replica.port}/postgres"}
    assert receiver.points("db.replica.reads") == [(named, 5)]
    assert receiver.points("db.replica.in_rotation") == [(named, 1)]
    [(_, behind)] = receiver.points("db.replica.lag")
    assert 0 <= behind < 5
