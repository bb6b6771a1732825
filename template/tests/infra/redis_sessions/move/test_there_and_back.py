# Rung's file: advancing to another stage may change it.
"""Sessions move to Redis and back, and nobody is logged out."""

import asyncio
import os
from itertools import pairwise

import pytest

from app.infra.redis_sessions.settings import Step
from dev.cache.valkey import Valkey
from tests.infra.redis_sessions.move.conftest import At, Backfill
from tests.infra.redis_sessions.move.people import People

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.

# More, such as 1,000, take minutes on a slow machine.
PEOPLE = int(os.environ.get("PEOPLE", "300"))
PAUSE_SECONDS = 0.1


async def test_nobody_is_logged_out_or_revived_on_the_way_there_and_back_and_there_again(
    at: At, backfill: Backfill, server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis is killed and started again at each step."""
    monkeypatch.setattr("app.infra.redis_sessions.move.steps.PAUSE_SECONDS", PAUSE_SECONDS)
    people = People()
    await people.arrive(at(Step.POSTGRES), PEOPLE)

    for old, new in pairwise([*Step, *list(Step)[-2::-1], *list(Step)[1:3]]):
        for copy in (at(new), at(old)):
            await people.come_and_go(copy)
        server.die()
        in_redis_alone = Step.REDIS in (old, new)
        await people.are_known_without_redis_to(at(old), at(new), or_refused=in_redis_alone)
        server.start()
        await asyncio.sleep(PAUSE_SECONDS)
        await people.are_known_to(at(old), at(new))
        if (old, new) == (Step.POSTGRES, Step.WRITE_BOTH):
            await backfill("to-redis")
        if (old, new) == (Step.REDIS, Step.REDIS_FIRST):
            await backfill("to-postgres")
    await people.are_known_to(at(new))


@pytest.mark.parametrize("direction", ["to-redis", "to-postgres"])
async def test_people_log_in_and_out_while_a_backfill_runs(
    at: At, backfill: Backfill, direction: str
) -> None:
    step, before, after = {
        "to-redis": (Step.WRITE_BOTH, Step.POSTGRES, Step.REDIS_FIRST),
        "to-postgres": (Step.REDIS_FIRST, Step.REDIS, Step.WRITE_BOTH),
    }[direction]
    people = People()
    await people.arrive(at(before), 300)

    running = asyncio.create_task(backfill(direction))
    while not running.done():
        await people.come_and_go(at(step))
    await running

    await people.are_known_to(at(step), at(after))
