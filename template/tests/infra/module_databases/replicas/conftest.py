# Rung's file: advancing to another stage may change it.
"""The own database of a module, with a streaming replica."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dev.pytest_plugin import RUN, Services
from tests.infra.module_databases.conftest import set_database
from tests.infra.replicas.replication import Cluster, Server, cluster

SENT = "CREATE TABLE sent (name text)"


@pytest.fixture(scope="package")
def servers() -> Iterator[Cluster]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with cluster(f"rung-parcels-{RUN}-{worker}") as servers:
        asyncio.run(servers.primary.run(SENT))
        yield servers


@pytest.fixture
def primary(servers: Cluster) -> Server:
    return servers.primary


@pytest.fixture
def replica(
    servers: Cluster, services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Server:
    """Up, and held back by nothing."""
    asyncio.run(create_table(services.database_url))
    server = servers.replica()
    asyncio.run(server.run("SELECT pg_wal_replay_resume()"))
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    monkeypatch.setenv("SESSION_STORE", "postgres")
    set_database(monkeypatch, "PARCELS", servers.primary.url)
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_URLS", server.url)
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_POLL_SECONDS", "0.05")
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_MAX_LAG_SECONDS", "60")
    return server


async def create_table(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(SENT)
    await connection.close()
