# Rung's file: advancing to another stage may change it.
"""Visits that the move of sessions must not forget."""

from datetime import timedelta

import pytest

from app.infra.redis_sessions.settings import Step
from dev.pytest_plugin import Services
from tests.infra.redis_sessions.move.conftest import IN_BOTH, At, Backfill
from tests.infra.redis_sessions.move.people import is_logged_in, logged_in
from tests.infra.redis_sessions.stored_in_redis import StoredInRedis
from tests.infra.test_sessions import StoredRows

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.


async def test_a_visit_copies_a_session_that_is_only_in_postgres(at: At) -> None:
    token = await logged_in(at(Step.POSTGRES))

    assert not await is_logged_in(at(Step.REDIS_FIRST), token)
    assert await is_logged_in(at(Step.REDIS_THEN_POSTGRES), token)
    assert await is_logged_in(at(Step.REDIS_FIRST), token)


async def test_a_visit_updates_both_stores(at: At, services: Services) -> None:
    token = await logged_in(at(Step.WRITE_BOTH))
    stores = (StoredRows(services), StoredInRedis())
    started = [await store.seen_at() for store in stores]

    for step in IN_BOTH:
        for store in stores:
            await store.age(seen_at=timedelta(minutes=6))
        assert await is_logged_in(at(step), token)
        now = [await store.seen_at() for store in stores]
        assert all(seen > start for seen, start in zip(now, started, strict=True))


async def test_the_newer_visit_wins_either_way(
    at: At, services: Services, backfill: Backfill
) -> None:
    await logged_in(at(Step.WRITE_BOTH))
    rows, redis = StoredRows(services), StoredInRedis()

    await redis.age(seen_at=timedelta(days=2))
    await rows.age(seen_at=timedelta(days=1))
    await backfill("to-redis")
    assert abs(await rows.seen_at() - await redis.seen_at()) < timedelta(seconds=1)

    await rows.age(seen_at=timedelta(days=1))
    await backfill("to-redis")
    assert await redis.seen_at() - await rows.seen_at() > timedelta(hours=23)
    await backfill("to-postgres")
    assert abs(await rows.seen_at() - await redis.seen_at()) < timedelta(seconds=1)
