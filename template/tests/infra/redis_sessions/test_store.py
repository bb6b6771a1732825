# Rung's file: advancing to another stage may change it.
"""Tests of sessions in Redis alone. test_sessions.py tests what all stores have in common."""

import asyncio
import secrets
from contextlib import nullcontext, suppress
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from app.infra.database import WriteSession
from app.infra.environment import EnvironmentIncomplete
from app.infra.failures import Unavailable
from app.infra.redis_sessions import store
from app.infra.redis_sessions.store import session_key
from app.infra.session_rows import LoginSession
from app.infra.session_tokens import COOKIE
from app.infra.sessions import Sessions
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app, browser
from tests.infra.redis_sessions.conftest import hanging, when_it_answers
from tests.infra.redis_sessions.stored_in_redis import StoredInRedis
from tests.infra.test_sessions import ADA, who

GRACE = uuid4()


async def test_while_redis_is_away_nobody_is_logged_out(ada: AsyncClient, server: Valkey) -> None:
    server.die()

    for method, path in [("GET", "/me"), ("POST", f"/login/{ADA}"), ("POST", "/logout")]:
        answer = await ada.request(method, path)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "set-cookie" not in answer.headers

    server.start()
    assert await who(ada) == str(ADA)
    assert (await ada.post("/logout")).status_code == 200


@pytest.mark.slow
async def test_later_requests_do_not_wait_for_a_hung_redis(
    app: FastAPI, ada: AsyncClient, server: Valkey
) -> None:
    with hanging(server, app):
        visits = await asyncio.gather(*(ada.get("/me") for _ in range(50)))
        assert {visit.status_code for visit in visits} == {503}
        assert (await ada.post("/logout")).status_code == 503

        app.state.session_redis._seconds = 60
        async with asyncio.timeout(4):  # its connection would wait 5 s
            assert await who(ada) == 503

    assert await when_it_answers(ada) == str(ADA)
    assert (await ada.post("/logout")).status_code == 200


@pytest.mark.slow
async def test_after_one_late_answer_of_redis_the_next_request_is_answered(
    app: FastAPI, ada: AsyncClient, server: Valkey
) -> None:
    with hanging(server, app):
        assert await who(ada) == 503
    assert await who(ada) == str(ADA)


async def test_a_killed_server_forgets_neither_a_login_nor_a_logout(
    app: FastAPI, serve: Serve, server: Valkey
) -> None:
    async with serve(app):
        clients = [browser(app) for _ in range(40)]
        await asyncio.gather(*(client.post(f"/login/{ADA}") for client in clients))
        tokens = [client.cookies[COOKIE] for client in clients]
        await asyncio.gather(*(client.post("/logout") for client in clients[:20]))

        server.die()
        server.start()

        for client, token in zip(clients, tokens, strict=True):
            client.cookies.set(COOKIE, token, domain="shop.test")
        found = [await who(client) for client in clients]
        await asyncio.gather(*(client.aclose() for client in clients))
    assert found == [401] * 20 + [str(ADA)] * 20


async def test_a_transaction_that_fails_ends_nothing_and_starts_nothing(
    app: FastAPI, ada: AsyncClient
) -> None:
    @app.post("/change-of-mind")
    async def change_of_mind(sessions: Sessions) -> None:
        await sessions.end_all(ADA)
        await sessions.start(GRACE)
        raise Unavailable

    assert (await ada.post("/change-of-mind")).status_code == 503

    assert await who(ada) == str(ADA)
    assert len(await StoredInRedis().token_hashes()) == 1


async def test_a_flush_that_fails_at_the_commit_starts_nothing(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.post("/incomplete")
    async def incomplete(write: WriteSession, sessions: Sessions) -> None:
        await sessions.start(GRACE)
        write.add(LoginSession(token_hash=b"of nobody"))

    assert (await client.post("/incomplete")).status_code == 500

    assert await StoredInRedis().token_hashes() == []


async def test_a_released_savepoint_sends_nothing_to_redis(app: FastAPI, ada: AsyncClient) -> None:
    @app.post("/change-of-mind")
    async def change_of_mind(write: WriteSession, sessions: Sessions) -> None:
        async with write.begin_nested():
            await sessions.end_all(ADA)
        raise Unavailable

    assert (await ada.post("/change-of-mind")).status_code == 503

    assert await who(ada) == str(ADA)


async def test_the_changes_of_a_savepoint_are_sent_with_the_commit(
    app: FastAPI, ada: AsyncClient
) -> None:
    @app.post("/leave")
    async def leave(write: WriteSession, sessions: Sessions) -> None:
        await write.begin_nested()  # left open: the COMMIT releases it
        await sessions.end_all(ADA)

    assert (await ada.post("/leave")).status_code == 200

    assert await who(ada) == 401


async def test_changes_rolled_back_to_a_savepoint_are_not_sent(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.post("/all-but-one")
    async def all_but_one(write: WriteSession, sessions: Sessions) -> None:
        await sessions.start(GRACE)
        with suppress(Unavailable):
            async with write.begin_nested():
                async with write.begin_nested():
                    await sessions.end_all(ADA)
                raise Unavailable

    await client.post(f"/login/{ADA}")
    ada = client.cookies[COOKIE]
    client.cookies.clear()
    await client.post("/all-but-one")
    assert await who(client) == str(GRACE)

    client.cookies.clear()
    client.cookies.set(COOKIE, ada, domain="shop.test")
    assert await who(client) == str(ADA)


async def test_changes_before_a_failed_flush_in_a_savepoint_are_sent(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.post("/with-a-conflict")
    async def with_a_conflict(write: WriteSession, sessions: Sessions) -> None:
        await sessions.start(ADA)
        with suppress(IntegrityError):
            async with write.begin_nested():
                write.add(LoginSession(token_hash=b"of nobody"))

    await client.post("/with-a-conflict")

    assert await who(client) == str(ADA)


async def test_rolled_back_changes_are_not_sent_with_later_ones(
    app: FastAPI, client: AsyncClient
) -> None:
    @app.post("/start-over")
    async def start_over(write: WriteSession, sessions: Sessions) -> None:
        await sessions.start(GRACE)
        await write.rollback()
        await sessions.start(ADA)

    await client.post("/start-over")
    assert await who(client) == str(ADA)

    assert len(await StoredInRedis().token_hashes()) == 1


async def test_a_change_that_redis_refuses_is_rolled_back(
    app: FastAPI, client: AsyncClient, server: Valkey, services: Services
) -> None:
    database = await asyncpg.connect(services.database_url)
    await database.execute("CREATE TABLE members (id uuid PRIMARY KEY)")

    @app.post("/members")
    async def join(write: WriteSession, sessions: Sessions) -> None:
        await write.execute(text("INSERT INTO members VALUES (:id)"), {"id": ADA})
        await sessions.start(ADA)

    server.die()
    assert (await client.post("/members")).status_code == 503
    assert await database.fetchval("SELECT count(*) FROM members") == 0
    server.start()

    assert (await client.post("/members")).status_code == 200
    assert await database.fetchval("SELECT count(*) FROM members") == 1
    await database.close()


async def test_concurrent_requests_share_one_lookup(ada: AsyncClient, server: Valkey) -> None:
    visits = await asyncio.gather(*(ada.get("/me") for _ in range(40)))

    assert {visit.json() for visit in visits} == {str(ADA)}
    assert StoredInRedis().client.info("commandstats")["cmdstat_mget"]["calls"] <= 10


async def test_a_request_fails_at_once_when_its_shared_lookup_was_cancelled(
    app: FastAPI, serve: Serve, server: Valkey
) -> None:
    async with serve(app):
        server.hang()
        others = asyncio.all_tasks()
        looking = asyncio.create_task(app.state.session_redis.find(b"of nobody"))
        await asyncio.sleep(0.1)
        for task in asyncio.all_tasks() - others - {looking}:
            task.cancel()

        async with asyncio.timeout(300):
            with pytest.raises(Unavailable, match="given up"):
                await looking


async def test_invented_tokens_leave_nothing_behind(client: AsyncClient, server: Valkey) -> None:
    for _ in range(3):
        client.cookies.set(COOKIE, secrets.token_urlsafe(32))
        assert (await client.post("/logout")).status_code == 200

    assert StoredInRedis().client.dbsize() == 0


async def test_everything_stored_expires(ada: AsyncClient, server: Valkey) -> None:
    await ada.post("/logout")
    await ada.post(f"/login/{ADA}")

    redis = StoredInRedis().client
    remaining = sorted(timedelta(milliseconds=redis.pttl(key)) for key in redis.scan_iter())
    # The new session, unless it is used; the tombstone of the old one; Ada's two indexes.
    assert [round(time / timedelta(days=1)) for time in remaining] == [14, 14, 14, 90]


async def test_logins_and_logouts_leave_only_tombstones(ada: AsyncClient, server: Valkey) -> None:
    await ada.post("/logout")
    for _ in range(2):
        await ada.post(f"/login/{ADA}")
        await ada.post("/logout")

    redis = StoredInRedis().client
    assert redis.mget(redis.keys("session:*")) == [b""] * 3


async def test_a_program_that_logs_in_again_and_again_does_not_fill_the_memory(
    ada: AsyncClient, app: FastAPI, server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_TOMBSTONES", 3)
    stored, sessions = StoredInRedis(), app.state.session_redis
    copies = []
    for _ in range(8):
        (token_hash,) = await stored.token_hashes()
        copies.append((token_hash, await sessions.find(token_hash)))
        await ada.post(f"/login/{ADA}")  # ends the session before it

    values = stored.client.mget(stored.client.keys("session:*"))
    assert sorted(map(bool, values)) == [False, False, False, True]
    for token_hash, copy in copies[-3:]:
        await sessions.note_visit(token_hash, copy)
        assert await sessions.find(token_hash) is None


async def test_a_tombstone_outlives_every_copy(
    ada: AsyncClient, app: FastAPI, server: Valkey
) -> None:
    """A request may still hold a copy of the session, and store it again for a full lifetime."""
    stored = StoredInRedis()
    (token_hash,) = await stored.token_hashes()
    copy = await app.state.session_redis.find(token_hash)
    stored.client.expire(session_key(token_hash), timedelta(minutes=1))  # not used since then

    await ada.post("/logout")

    assert stored.client.ttl(session_key(token_hash)) > timedelta(days=13).total_seconds()
    await app.state.session_redis.note_visit(token_hash, copy)
    assert await app.state.session_redis.find(token_hash) is None


async def test_when_memory_is_full_logged_in_users_stay_logged_in(
    ada: AsyncClient, server: Valkey
) -> None:
    StoredInRedis().client.config_set("maxmemory", "1mb")

    assert (await ada.post(f"/login/{ADA}")).status_code == 503
    assert await who(ada) == str(ADA)


async def test_when_memory_is_full_people_can_log_out(
    app: FastAPI, ada: AsyncClient, server: Valkey
) -> None:
    async with browser(app) as elsewhere:
        await elsewhere.post(f"/login/{ADA}")
        StoredInRedis().client.config_set("maxmemory", "1mb")
        assert (await ada.post("/logout")).status_code == 200
        assert await who(elsewhere) == str(ADA)

        assert (await elsewhere.post(f"/logout-everywhere/{ADA}")).status_code == 200
        assert await who(elsewhere) == 401


async def test_a_logout_is_one_command_without_a_transaction(
    ada: AsyncClient, server: Valkey
) -> None:
    """Redis 7 takes none while memory is full."""
    redis = StoredInRedis().client
    redis.config_resetstat()
    assert (await ada.post("/logout")).status_code == 200

    assert "cmdstat_multi" not in redis.info("commandstats")


async def test_when_memory_is_full_a_new_login_ends_no_other_session(
    monkeypatch: pytest.MonkeyPatch, app: FastAPI, ada: AsyncClient, server: Valkey
) -> None:
    monkeypatch.setattr(app.state.session_settings, "most", 1)
    StoredInRedis().client.config_set("maxmemory", "1mb")

    async with browser(app) as elsewhere:
        assert (await elsewhere.post(f"/login/{ADA}")).status_code == 503
    assert await who(ada) == str(ADA)


@pytest.mark.usefixtures("services")
def test_the_url_of_redis_is_required_where_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SESSION_REDIS_URL")

    with pytest.raises(EnvironmentIncomplete, match="must be set with SESSION_STORE=redis"):
        bare_app()


@pytest.mark.usefixtures("services")
@pytest.mark.parametrize(
    ("sessions", "cache", "is_refused"),
    [
        ("redis://:secret@redis", "redis://other:password@Redis:6379/0?timeout=2", True),
        ("redis://redis/1", "redis://redis?db=1", True),
        ("redis://redis/1", "redis://redis/0", False),
        ("redis://redis:6379", "redis://redis:6380", False),
        ("redis://redis", "", False),
    ],
)
def test_sessions_in_the_database_of_the_cache_are_refused(
    monkeypatch: pytest.MonkeyPatch, sessions: str, cache: str, is_refused: bool
) -> None:
    monkeypatch.setenv("SESSION_REDIS_URL", sessions)
    monkeypatch.setenv("CACHE_URL", cache)
    refusal = pytest.raises(EnvironmentIncomplete, match="the same database as CACHE_URL")
    with refusal if is_refused else nullcontext():
        bare_app()
