# Rung's file: advancing to another stage may change it.
"""The commands that copy all sessions at once, to Redis and back."""

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.infra.redis_sessions.move import __main__ as move
from app.infra.redis_sessions.settings import Step
from app.infra.session_rows import Session
from app.infra.session_tokens import hash_of
from dev.cache import valkey
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.redis_sessions.move.conftest import At, Backfill
from tests.infra.redis_sessions.move.people import is_logged_in, logged_in
from tests.infra.redis_sessions.stored_in_redis import StoredInRedis
from tests.infra.test_sessions import StoredRows

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.

ADA = uuid4()


async def test_a_session_whose_login_is_not_committed_yet_does_not_count_as_ended(
    at: At, backfill: Backfill
) -> None:
    app = at(Step.WRITE_BOTH)
    token, now = "given-out-after-the-commit", datetime.now(UTC)
    session = Session(ADA, now, now + timedelta(days=1))

    async with app.state.database.transaction() as write:
        await app.state.session_store.start(write, hash_of(token), session)
        await app.state.session_redis.keep(hash_of(token), session)
        running = asyncio.create_task(backfill("to-redis"))
        await asyncio.wait([running], timeout=0.5)
    await running

    assert await is_logged_in(at(Step.REDIS_FIRST), token)


@pytest.mark.parametrize("step", [Step.REDIS_FIRST, Step.REDIS])
async def test_a_backfill_does_not_undo_a_logout_that_is_not_committed_yet(
    at: At, services: Services, backfill: Backfill, step: Step
) -> None:
    app = at(step)
    token = await logged_in(at(Step.REDIS))

    async with app.state.database.transaction() as write:
        await app.state.session_store.end(write, hash_of(token))
        running = asyncio.create_task(backfill("to-postgres"))
        await asyncio.wait([running], timeout=0.5)
    await running

    assert await StoredRows(services).token_hashes() == []


async def test_sessions_that_redis_lost_stay_in_postgres_on_the_way_back(
    at: At, backfill: Backfill
) -> None:
    token = await logged_in(at(Step.REDIS_FIRST))
    await at(Step.REDIS_FIRST).state.session_redis.client.flushall()

    await backfill("to-postgres")

    assert await is_logged_in(at(Step.REDIS_THEN_POSTGRES), token)


async def test_a_backfill_that_is_killed_is_run_again(
    server: Valkey, postgres: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    await postgres.execute(
        """INSERT INTO login_sessions SELECT sha256(n::text::bytea), uuidv4(), now(),
        now() + interval '1 day' FROM generate_series(1, 10000) AS n"""
    )
    monkeypatch.setenv("SESSION_STORE", "write-both")

    progress, *_ = await run_backfill(kill_at_once=True)
    assert progress == "1,000 sessions of Postgres, 1,000 of them copied"
    copied = len(await StoredInRedis().token_hashes())
    assert 1000 <= copied < 10_000

    *_, result = await run_backfill()
    missing = 10_000 - copied
    assert result == f"Redis holds all 10,000 sessions: {missing:,} copied now, 0 ended there."
    assert len(await StoredInRedis().token_hashes()) == 10_000


async def run_backfill(*, kill_at_once: bool = False) -> list[str]:
    """Yields the lines that the command prints."""
    command = [sys.executable, "-m", "app.infra.redis_sessions.move", "to-redis"]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout
    first = await process.stdout.readline()
    if kill_at_once:
        process.kill()
    rest, _ = await process.communicate()
    return (first + rest).decode().splitlines()


@pytest.mark.parametrize(
    ("direction", "step"),
    [("to-redis", "postgres"), ("to-redis", "redis"), ("to-postgres", "redis-then-postgres")],
)
@pytest.mark.usefixtures("server")
async def test_a_backfill_at_the_wrong_step_is_refused(
    monkeypatch: pytest.MonkeyPatch, direction: str, step: str
) -> None:
    monkeypatch.setenv("SESSION_STORE", step)

    with pytest.raises(SystemExit, match=f"SESSION_STORE is {step}, and {direction} is safe only"):
        await move.main(direction)


async def test_a_server_that_drops_sessions_is_refused(
    services: Services, monkeypatch: pytest.MonkeyPatch, backfill: Backfill
) -> None:
    with valkey.running("cache") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)

        with pytest.raises(SystemExit, match="maxmemory-policy is allkeys-lfu"):
            await backfill("to-redis")
