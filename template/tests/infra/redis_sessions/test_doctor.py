# Rung's file: advancing to another stage may change it.
"""The doctor in front of the login sessions' real server."""

from typing import Any

import pytest
from redis.asyncio import Redis

from app.infra.cache.redis_seen import RedisSeen
from app.infra.doctor.finding import Window
from app.infra.doctor.rules import judge
from app.infra.redis_sessions.doctor import NAME, SESSIONS, look
from dev.cache import valkey
from tests.infra.cache.test_doctor import WELL
from tests.infra.doctor.test_rules import evidence, judged_without

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "may_drop": ("sessions-dropped", {"policy": "volatile-lru"}),
    "nearly_full": ("sessions-full", {"memory": 95 << 20}),
    "refuses": ("redis-refuses", {"refused": 3}),
    "is_busy": ("redis-busy", {"slow": 20, "slowest_ms": 80.0, "slowest": "KEYS"}),
}


async def test_a_server_is_reported_before_it_is_full_and_logins_fail(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with valkey.running("sessions", maxmemory="4mb") as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)
        async with Redis.from_url(server.url) as client:
            await client.config_set("maxmemory", (await client.info())["used_memory"] + 50_000)

        capability = await look(Window(0.1, 8))

    assert capability
    assert isinstance(capability.seen, RedisSeen)
    found = evidence(stage=4, capabilities={NAME: capability.seen.model_dump()})
    assert judge(found).verdict.rule == "sessions-full"


async def test_a_server_that_may_drop_sessions_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    with valkey.running("sessions", **{"maxmemory-policy": "volatile-lru"}) as server:
        monkeypatch.setenv("SESSION_REDIS_URL", server.url)

        capability = await look(Window(0.1, 8))

    assert capability
    assert isinstance(capability.seen, RedisSeen)
    found = evidence(stage=4, capabilities={NAME: capability.seen.model_dump()})
    assert judge(found).verdict.rule == "sessions-dropped"


async def test_without_sessions_in_redis_the_doctor_reports_nothing_about_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SESSION_REDIS_URL", "SESSION_STORE"):
        monkeypatch.delenv(name, raising=False)

    assert await look(Window(0.1, 8)) is None


@pytest.mark.parametrize("rule", SESSIONS.rules, ids=lambda rule: rule.__name__)
def test_each_rule_has_its_case(rule: Any) -> None:
    name, seen = CASES[rule.__name__]
    found = evidence(stage=4, capabilities={NAME: WELL | seen})

    assert judge(found).verdict.rule == name
    assert judged_without(rule, found) == "stay"
