# Rung's file: advancing to another stage may change it.
"""A primary with a streaming replica, for the tests of this folder."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.pytest_plugin import RUN
from tests.infra.replicas.replication import SESSIONS, Cluster, Server, cluster


async def create_tables(server: Server) -> None:
    await server.run("CREATE TABLE notes (id bigint PRIMARY KEY)")
    await server.run(SESSIONS)


@pytest.fixture(scope="package")
def servers() -> Iterator[Cluster]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with cluster(f"rung-replicas-{RUN}-{worker}") as servers:
        asyncio.run(create_tables(servers.primary))
        yield servers


@pytest.fixture
def primary(servers: Cluster) -> Server:
    return servers.primary


@pytest.fixture
def replica(servers: Cluster) -> Server:
    """The running replica, which replays without a delay."""
    server = servers.replica()
    asyncio.run(server.run("SELECT pg_wal_replay_resume()"))
    return server


@pytest.fixture
def settings(primary: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", primary.url)
    monkeypatch.setenv("DATABASE_REPLICA_POLL_SECONDS", "0.05")
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
