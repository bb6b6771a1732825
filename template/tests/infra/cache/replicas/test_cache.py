# Rung's file: advancing to another stage may change it.
"""The cache in front of a primary and a replica that replays nothing."""

import asyncio
import math
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from fastapi import FastAPI

from dev.cache import valkey
from dev.pytest_plugin import RUN
from tests.infra.cache import caching
from tests.infra.cache.caching import NOTES, body, notes_app, put, serving
from tests.infra.conftest import browser, until
from tests.infra.replicas.replication import Cluster, Server, cluster


def needs_a_replica(app: FastAPI) -> bool:
    needed: bool = app.state.database.reader().needs_a_replica(timedelta(minutes=5))
    return needed


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


@pytest.mark.slow
async def test_while_the_primary_hangs_the_replica_answers_what_the_cache_lacks(
    servers: Cluster, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infra.replicas.replicas.SILENCE_SECONDS", 5)
    await servers.primary.run("INSERT INTO notes VALUES (9, 'tea') RETURNING 0")
    await replica.run("SELECT pg_wal_replay_resume()")
    await replica.becomes("EXISTS (SELECT FROM notes WHERE number = 9)")
    app = notes_app()
    async with serving(app) as reader:
        await until(lambda: app.state.database.replicas[0].is_in_rotation)
        servers.primary.signal(signal.SIGSTOP)
        try:
            await until(lambda: needs_a_replica(app))
            assert await body(reader, "/notes/9") == "tea"
            app.state.database.replicas[0].seconds_behind = math.inf
            assert not needs_a_replica(app)  # the reads of a key still share one load
        finally:
            servers.primary.signal(signal.SIGCONT)
        await until(lambda: not needs_a_replica(app))
        assert await body(reader, "/notes/9") == "tea"
        assert app.state.cache.stats.misses == 1
