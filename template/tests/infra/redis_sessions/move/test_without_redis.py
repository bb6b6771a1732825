# Rung's file: advancing to another stage may change it.
"""The move of sessions while Redis is away."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from app.infra.redis_sessions.settings import Step
from app.infra.redis_sessions.store import PAUSE_SECONDS
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import until
from tests.infra.redis_sessions.conftest import hanging
from tests.infra.redis_sessions.move.conftest import At, whoever_knows
from tests.infra.redis_sessions.move.people import ask, is_logged_in, is_refused, logged_in
from tests.infra.test_sessions import StoredRows

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.

ADA = uuid4()

WITHOUT_REDIS = {
    Step.WRITE_BOTH: 200,
    Step.REDIS_THEN_POSTGRES: 200,
    Step.REDIS_FIRST: 200,
    Step.REDIS: 503,
}


@pytest.mark.parametrize("step", WITHOUT_REDIS)
async def test_nobody_is_logged_out_or_seems_so_while_redis_is_down(
    at: At, server: Valkey, step: Step
) -> None:
    app = at(step)
    token = await logged_in(app)
    server.die()

    assert (await ask(app, "GET", "/me", token)).status == WITHOUT_REDIS[step]
    for path in ("/logout", f"/login/{uuid4()}"):
        assert is_refused(await ask(app, "POST", path, token))

    server.start()
    await asyncio.sleep(PAUSE_SECONDS)
    assert await is_logged_in(app, token)
    assert (await ask(app, "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


@pytest.mark.parametrize("step", WITHOUT_REDIS)
async def test_nobody_is_logged_out_or_seems_so_while_redis_hangs(
    at: At, server: Valkey, step: Step
) -> None:
    app = at(step)
    token = await logged_in(app)
    with hanging(server, app):
        assert (await ask(app, "GET", "/me", token)).status == WITHOUT_REDIS[step]
        assert is_refused(await ask(app, "POST", "/logout", token))

    # Redis may now run the old command, although no request waits for it.
    await asyncio.sleep(PAUSE_SECONDS)
    await until(lambda: app.state.session_redis.is_reachable)
    assert (await ask(app, "POST", "/logout", token)).status == 200
    assert await whoever_knows(token, at, step) == []


@pytest.mark.parametrize("step", WITHOUT_REDIS)
async def test_repeated_logouts_do_not_each_wait_while_redis_hangs(
    at: At, server: Valkey, step: Step
) -> None:
    token = await logged_in(at(step))
    with hanging(server, at(step)):
        async with asyncio.timeout(8):  # half a second each would be 20 s
            for _ in range(40):
                assert is_refused(await ask(at(step), "POST", "/logout", token))


@pytest.mark.parametrize("step", [Step.REDIS_THEN_POSTGRES, Step.REDIS_FIRST])
async def test_repeated_visits_do_not_each_wait_while_redis_hangs(
    at: At, server: Valkey, step: Step
) -> None:
    token = await logged_in(at(step))
    with hanging(server, at(step)):
        async with asyncio.timeout(8):  # half a second each would be 20 s
            for _ in range(40):
                assert await is_logged_in(at(step), token)


@pytest.mark.parametrize("path", ["/logout", "/logout-everywhere/{ada}", "/login/{ada}"])
async def test_a_session_ended_at_the_last_step_is_not_found_in_postgres(
    at: At, server: Valkey, path: str
) -> None:
    token = await logged_in(at(Step.REDIS_FIRST), ADA)
    assert (await ask(at(Step.REDIS), "POST", path.format(ada=ADA), token)).status == 200

    server.die()
    assert is_refused(await ask(at(Step.REDIS_FIRST), "GET", "/me", token))


async def test_a_session_started_at_the_last_step_does_not_seem_ended(
    at: At, server: Valkey
) -> None:
    token = await logged_in(at(Step.REDIS))

    server.die()
    assert is_refused(await ask(at(Step.REDIS_FIRST), "GET", "/me", token))


async def test_a_session_seen_at_the_last_step_does_not_seem_ended(
    at: At, server: Valkey, services: Services
) -> None:
    token = await logged_in(at(Step.REDIS_FIRST))
    await StoredRows(services).age(seen_at=timedelta(days=15))

    server.die()
    assert is_refused(await ask(at(Step.REDIS_FIRST), "GET", "/me", token))
