# Rung's file: advancing to another stage may change it.
"""A client with a token sees its own writes, with its session in Redis or on the way there."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import pytest
import redis

from app.infra.redis_sessions.settings import Step
from app.infra.redis_sessions.store import position_key
from app.infra.session_tokens import hash_of
from dev.cache import valkey
from dev.cache.valkey import Valkey
from tests.infra.own_writes.replicas.pair import calls, delayed, pair, until_replica_is_read
from tests.infra.own_writes.silent_clients import (
    copies_of,
    diary_app,
    logged_in,
    mistakes_of_many,
    new_ids,
    status_of,
)
from tests.infra.replicas.replication import Cluster, Server


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with pair("silent-redis") as servers:
        yield servers


@pytest.fixture
def sessions(monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    with valkey.running("sessions") as sessions:
        monkeypatch.setenv("SESSION_REDIS_URL", sessions.url)
        monkeypatch.setenv("SESSION_REDIS_SECONDS", "5")
        yield sessions


@pytest.fixture
def replica(
    servers: Cluster, sessions: Valkey, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Server]:
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    monkeypatch.setenv("CACHE_PREFIX", uuid4().hex)
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    with valkey.running("cache") as cache:
        monkeypatch.setenv("CACHE_URL", cache.url)
        yield delayed(servers, monkeypatch)


async def test_with_its_session_in_redis_a_client_that_echoes_nothing_sees_its_writes(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORE", Step.REDIS)
    async with copies_of(diary_app(), diary_app()) as copies:
        await until_replica_is_read(copies, replica)
        assert await mistakes_of_many(copies) == {}


async def test_a_login_without_a_statement_shows_what_was_committed_before_it(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORE", Step.REDIS)
    async with copies_of(diary_app(), diary_app()) as (one, other):
        await until_replica_is_read([one, other], replica)
        path = f"/diaries/{next(new_ids)}"
        before = await logged_in(one)
        # A new connection to Redis covers older writes, so open it first.
        assert await status_of(other, before) == 200
        assert (await one.put(path, params={"page": 7}, headers=before)).status_code == 200

        assert (await other.get(path, headers=await logged_in(one))).json() == 7


@pytest.mark.slow
@pytest.mark.parametrize("steps", list(pairwise(Step)))
async def test_copies_at_neighbouring_steps_of_the_move_share_positions(
    replica: Server, monkeypatch: pytest.MonkeyPatch, steps: tuple[Step, Step]
) -> None:
    apps = []
    for step in steps:
        monkeypatch.setenv("SESSION_STORE", step)
        apps.append(diary_app())
    async with copies_of(*apps) as copies:
        await until_replica_is_read(copies, replica)
        assert await mistakes_of_many(copies, 160) == {}


async def test_with_its_session_in_redis_a_token_costs_no_lookup_on_the_primary(
    servers: Cluster, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORE", Step.REDIS)
    async with copies_of(diary_app()) as (copy,):
        await until_replica_is_read([copy], replica)
        token = await logged_in(copy)
        lookups = await calls(servers.primary, "login_sessions")
        for _ in range(5):
            assert await status_of(copy, token) == 200

        assert await calls(servers.primary, "login_sessions") == lookups


async def test_a_client_sees_its_writes_after_redis_lost_the_last_positions(
    replica: Server, sessions: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORE", Step.REDIS)
    async with copies_of(diary_app(), diary_app()) as copies:
        await until_replica_is_read(copies, replica)
        one, other = copies
        token = await logged_in(one)
        paths = [f"/{kind}/{next(new_ids)}" for kind in ("cached-diaries", "diaries")]
        for page in (1, 2):
            for path in paths:
                await one.put(path.replace("cached-", ""), params={"page": page}, headers=token)
            if page == 1:
                for path in paths:
                    assert (await other.get(path, headers=token)).json() == 1

        # As if it had died, or failed over, before the positions reached the disk or the replica.
        with redis.from_url(sessions.url) as client:
            bearer = token["Authorization"].removeprefix("Bearer ")
            assert client.delete(position_key(hash_of(bearer))) == 1
        sessions.die()
        sessions.start()

        for copy in (other, one):
            assert await status_of(copy, token) == 200
            for path in paths:
                assert (await copy.get(path, headers=token)).json() == 2


async def test_while_the_sessions_are_away_a_token_still_gets_answers_that_need_no_session(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SESSION_STORE", Step.REDIS)
    monkeypatch.setenv("SESSION_REDIS_URL", "redis://127.0.0.1:1/0")
    token = {"Authorization": "Bearer some-token"}
    async with copies_of(diary_app()) as (copy,):
        await until_replica_is_read([copy], replica)
        assert (await copy.get("/diaries/0", headers=token)).status_code == 200
        assert await status_of(copy, token) == 503
