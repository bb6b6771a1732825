# Rung's file: advancing to another stage may change it.
"""A session that has ended stays ended, at each step of the move."""

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.infra.redis_sessions.settings import Step
from app.infra.redis_sessions.store import ENDED
from app.infra.session_rows import Session
from app.infra.session_tokens import hash_of
from tests.infra.redis_sessions.move.conftest import IN_BOTH, At, Backfill, whoever_knows
from tests.infra.redis_sessions.move.people import ask, is_logged_in, is_refused, logged_in

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.

ADA = uuid4()


@pytest.mark.parametrize("step", [*IN_BOTH, Step.REDIS])
async def test_a_logout_that_postgres_refuses_changes_nothing(
    at: At, postgres: asyncpg.Connection, step: Step
) -> None:
    token = await logged_in(at(step))

    await postgres.execute(REFUSE_TO_DELETE)
    assert is_refused(await ask(at(step), "POST", "/logout", token))
    await postgres.execute("DROP TRIGGER refuse ON login_sessions")

    assert step in await whoever_knows(token, at, step)
    assert (await ask(at(step), "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


# As after a wait for a lock.
REFUSE_TO_DELETE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE query_canceled; END $$;
    CREATE TRIGGER refuse BEFORE DELETE ON login_sessions EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize("step", IN_BOTH)
async def test_a_commit_that_fails_is_refused_and_revives_no_session(
    at: At, postgres: asyncpg.Connection, step: Step
) -> None:
    token = await logged_in(at(step))

    await postgres.execute(FAIL_AT_COMMIT)
    for path in (f"/login/{uuid4()}", "/logout"):
        assert is_refused(await ask(at(step), "POST", path, token))
    await postgres.execute("DROP TRIGGER fail ON login_sessions")

    assert (await ask(at(step), "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


FAIL_AT_COMMIT = """
    CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE serialization_failure; END $$;
    CREATE CONSTRAINT TRIGGER fail AFTER INSERT OR DELETE ON login_sessions
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fail();
"""


async def test_a_row_that_is_restored_does_not_revive_its_session(
    at: At, postgres: asyncpg.Connection, backfill: Backfill
) -> None:
    """Such a row comes from a lagging replica, or was read before the logout."""
    app = at(Step.REDIS_THEN_POSTGRES)
    token = await logged_in(app)
    rows = await postgres.fetch("SELECT * FROM login_sessions")
    await ask(app, "POST", "/logout", token)
    await postgres.copy_records_to_table("login_sessions", records=rows)
    assert await is_logged_in(at(Step.WRITE_BOTH), token)

    assert not await is_logged_in(app, token)
    await backfill("to-redis")
    assert not await is_logged_in(app, token)


@pytest.mark.parametrize("path", ["/logout", "/logout-everywhere/{ada}", "/login/{ada}"])
async def test_a_late_copy_does_not_revive_an_ended_session(at: At, path: str) -> None:
    app = at(Step.WRITE_BOTH)
    token = await logged_in(at(Step.POSTGRES), ADA)
    row = await app.state.session_store.find(hash_of(token))

    assert (await ask(app, "POST", path.format(ada=ADA), token)).status == 200

    assert await app.state.session_redis.keep(hash_of(token), row) == ENDED


async def test_a_session_that_ends_during_its_lookup_is_not_copied(
    at: At, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = at(Step.REDIS_THEN_POSTGRES)
    token = await logged_in(at(Step.POSTGRES))
    rows = app.state.session_store.rows
    find = rows.find

    async def find_just_before_the_logout(token_hash: bytes) -> Session | None:
        row: Session | None = await find(token_hash)
        assert (await ask(app, "POST", "/logout", token)).status == 200
        return row

    monkeypatch.setattr(rows, "find", find_just_before_the_logout)
    assert not await is_logged_in(app, token)


async def test_an_older_copy_leaves_the_newer_one(at: At) -> None:
    app = at(Step.WRITE_BOTH)
    token = await logged_in(app)
    session = await app.state.session_redis.find(hash_of(token))

    older = replace(session, seen_at=session.seen_at - timedelta(days=1))
    await app.state.session_redis.keep(hash_of(token), older)

    assert await app.state.session_redis.find(hash_of(token)) == session
