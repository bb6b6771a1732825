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
from dev.cache.valkey import Valkey
from tests.infra.cache.failover import name_of, two_servers


@pytest.fixture
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    with two_servers("sessions") as servers:
        yield servers


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
            async with asyncio.timeout(2):
                while True:
                    try:
                        await redis.keep(b"after", ada)
                    except Unavailable:
                        await asyncio.sleep(0.01)
                    else:
                        break

        assert await asyncio.gather(*(redis.find(b"after") for _ in range(8))) == [ada] * 8
        await redis.check()
        await redis.close()
    words = [line["event"] for line in lines]
    assert words == ["the sessions' Redis is left alone", "the sessions' Redis answers"]
