# Rung's file: advancing to another stage may change it.
"""The cache in front of a primary and a replica that replays nothing."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dev.cache import valkey
from dev.pytest_plugin import RUN
from tests.infra.cache import caching
from tests.infra.cache.caching import NOTES, body, notes_app, put, serving
from tests.infra.conftest import browser
from tests.infra.replicas.replication import Cluster, Server, cluster


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with cluster(f"rung-cached-{RUN}-{worker}") as servers:
        asyncio.run(servers.primary.run(NOTES))
        yield servers


@pytest.fixture
def replica(servers: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """Pauses the replay: the replica does not show later writes of the primary."""
    replica = servers.replica()
    asyncio.run(replica.run("SELECT pg_wal_replay_pause()"))
    monkeypatch.setenv("DATABASE_URL", servers.primary.url)
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
    monkeypatch.setenv("CACHE_PREFIX", uuid4().hex)
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    monkeypatch.setattr(caching, "loads", caching.Loads())
    with valkey.running("cache") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        yield replica
    asyncio.run(replica.run("SELECT pg_wal_replay_resume()"))


@pytest.mark.slow
@pytest.mark.usefixtures("replica")
async def test_a_cached_answer_never_comes_from_a_replica() -> None:
    app = notes_app()
    async with serving(app) as reader, browser(app) as writer:
        await put(writer, 1, "butter")

        assert await body(reader, "/notes/1") == "butter"


@pytest.mark.usefixtures("replica")
async def test_a_client_sees_its_write_although_an_older_answer_is_cached() -> None:
    app = notes_app()
    async with serving(app) as reader, browser(app) as writer:
        await put(writer, 1, "milk")
        assert await body(reader, "/notes/1") == "milk"
        for turn in range(20):
            await put(writer, 1, f"v{turn}")
            assert await body(writer, "/notes/1") == f"v{turn}"
