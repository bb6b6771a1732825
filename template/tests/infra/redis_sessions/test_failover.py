# Rung's file: advancing to another stage may change it.
"""The sessions' Redis fails over to another server."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from structlog.testing import capture_logs

from app.infra.failures import Unavailable
from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import Session, SessionSettings
from dev.cache import valkey
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.cache.failover import ODD_ANSWERS, REFUSALS, name_of, one_shard, two_servers
from tests.infra.conftest import Serve
from tests.infra.redis_sessions.conftest import when_it_answers
from tests.infra.test_sessions import session_app, who

NO_LISTS = [one for one in ODD_ANSWERS if one not in (b"*0\r\n", b"*2\r\n$1\r\na\r\n$1\r\nb\r\n")]


@pytest.fixture
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    with two_servers("sessions") as servers:
        yield servers


async def test_a_server_in_cluster_mode_is_not_ready() -> None:
    """It would take a session's own key, and refuse each login: that needs keys of two slots."""
    with one_shard("sessions") as server:
        redis = RedisSessions(server.url, 5, SessionSettings())
        with pytest.raises(Unavailable, match="cluster mode off"):
            await redis.check()
        await redis.aclose()


async def test_sessions_start_again_within_two_seconds_of_a_failover(
    servers: tuple[Valkey, Valkey],
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ada = Session(uuid4(), now, now + timedelta(days=1))
    async with name_of(*servers) as name:
        redis = RedisSessions(name.url, 5, SessionSettings())
        await asyncio.gather(*(redis.keep(b"before", ada) for _ in range(8)))  # opens 8 connections
        with capture_logs() as lines:
            name.demote_old()
            with pytest.raises(Unavailable):
                await redis.check()
            with pytest.raises(Unavailable):
                await redis.find(b"before")

            name.leads_to = name.new
            async with asyncio.timeout(7):  # two, and a pause of a busy machine
                while True:
                    try:
                        await redis.keep(b"after", ada)
                    except Unavailable:
                        await asyncio.sleep(0.01)
                    else:
                        break

        assert await asyncio.gather(*(redis.find(b"after") for _ in range(8))) == [ada] * 8
        await redis.check()
        await redis.aclose()
    words = [line["event"] for line in lines]
    assert words == ["the sessions' Redis: circuit breaker open", "the sessions' Redis answers"]


async def test_no_answer_of_redis_is_a_server_error_or_logs_anybody_out(
    services: Services, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.infra.cache.lookups.PROBE_SECONDS", 0.01)
    with valkey.running("sessions") as server:
        async with name_of(server, server) as name:
            monkeypatch.setenv("SESSION_REDIS_URL", name.url)
            async with serve(session_app()) as client:
                await client.post(f"/login/{uuid4()}")
                person = await who(client)
                for answer in [*REFUSALS, *ODD_ANSWERS]:
                    name.answer = answer
                    assert await who(client) == 503, answer
                    assert (await client.post(f"/login/{uuid4()}")).status_code == 503, answer
                    name.answer = b""
                    assert await when_it_answers(client) == person, answer
                for method, path in (("GET", "sessions"), ("POST", "logout-everywhere")):
                    for answer in NO_LISTS:
                        name.answer = answer
                        refused = await client.request(method, f"/{path}/{person}")
                        assert refused.status_code == 503, answer
                        name.answer = b""
                        assert await when_it_answers(client) == person, answer
