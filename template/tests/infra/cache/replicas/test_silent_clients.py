# Rung's file: advancing to another stage may change it.
"""A client with a token sees its own writes through the cache, with a replica 5 s behind."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from dev.cache import valkey
from tests.infra.own_writes.replicas.pair import delayed, pair, until_replica_is_read
from tests.infra.own_writes.silent_clients import copies_of, diary_app, mistakes_of_many
from tests.infra.replicas.replication import Cluster, Server


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with pair("silent-cached") as servers:
        yield servers


@pytest.fixture
def replica(servers: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    monkeypatch.setenv("CACHE_PREFIX", uuid4().hex)
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    with valkey.running("cache") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        yield delayed(servers, monkeypatch)


async def test_a_client_that_echoes_nothing_gets_no_older_cached_answer(replica: Server) -> None:
    async with copies_of(first := diary_app(), diary_app()) as copies:
        await until_replica_is_read(copies, replica)
        assert await mistakes_of_many(copies) == {}
        assert first.state.cache.stats.hits > 0


@pytest.mark.slow
async def test_a_copy_notes_positions_before_it_reads_from_the_cache(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = diary_app()
    monkeypatch.setenv("CACHE_READS", "false")
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    async with copies_of(reading, diary_app()) as copies:
        await until_replica_is_read(copies[:1], replica)
        assert await mistakes_of_many(copies) == {}
