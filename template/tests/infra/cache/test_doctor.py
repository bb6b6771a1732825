# Rung's file: advancing to another stage may change it.
"""The doctor in front of the cache's real server."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import count
from typing import Any

import pytest
from redis.asyncio import Redis

from app.infra.cache.doctor import CACHE, NAME, look
from app.infra.cache.redis_seen import RedisSeen
from app.infra.doctor.finding import Missing, Window
from app.infra.doctor.rules import judge
from dev.cache import valkey
from dev.cache.valkey import Valkey
from tests.infra.doctor.test_rules import evidence, judged_without

WELL: dict[str, Any] = {
    "processor": 0.1,
    "memory": 10 << 20,
    "most_memory": 100 << 20,
    "evicted": 0,
    "hits": 900,
    "misses": 100,
    "refused": 0,
    "slow": 0,
    "slowest_ms": 0.0,
    "slowest": "",
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "too_small": ("cache-too-small", {"evicted": 500, "hits": 300, "misses": 700}),
    "drops_nothing": ("cache-too-small", {"policy": "noeviction", "memory": 95 << 20}),
    "is_busy": ("redis-busy", {"processor": 0.8}),
    "refuses": ("redis-refuses", {"refused": 3}),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Valkey]:
    with valkey.running("cache", maxmemory="3mb") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        yield server


async def seen() -> RedisSeen:
    capability = await look(Window(0.5, 8))
    assert capability
    assert isinstance(capability.seen, RedisSeen)
    return capability.seen


async def test_the_doctor_sees_evictions_and_slow_commands_without_their_arguments(
    server: Valkey,
) -> None:
    async with Redis.from_url(server.url) as client:
        await client.config_set("slowlog-log-slower-than", 0)

        async def store(numbers: Iterable[int]) -> None:
            for number in numbers:
                await client.set(f"secret-{number}", "x" * 100_000)
                await client.get(f"secret-{number - 40}")

        await store(range(40))  # more than fits
        storing = asyncio.create_task(store(count(40)))
        found = await seen()
        storing.cancel()

    assert found.evicted > 0
    assert found.misses > 0
    assert found.slow > 0
    assert found.slowest
    assert " " not in found.slowest
    assert "secret" not in found.model_dump_json()
    assert "127.0.0.1" not in found.model_dump_json()


async def test_a_quiet_cache_is_healthy(server: Valkey) -> None:
    found = await seen()

    assert judge(evidence(stage=3, capabilities={NAME: found.model_dump()})).verdict.rule == "stay"


async def test_a_cache_that_is_away_is_reported_in_one_line(server: Valkey) -> None:
    server.die()

    with pytest.raises(Missing) as missing:
        await look(Window(0.5, 8))

    assert "\n" not in missing.value.why
    assert "redis-cli" in missing.value.remedy
    assert server.password not in f"{missing.value.why} {missing.value.remedy}"


async def test_a_server_whose_info_is_shorter_is_reported_in_one_line(
    server: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As at hosting providers that do not run Redis itself."""

    async def shorter(*_: Any) -> dict[str, int]:
        return {"used_memory": 1}

    monkeypatch.setattr(Redis, "info", shorter)

    with pytest.raises(Missing) as missing:
        await look(Window(0.1, 8))

    assert missing.value.why.startswith("its INFO has no ")


async def test_without_a_cache_the_doctor_reports_nothing_about_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CACHE_URL", raising=False)

    assert await look(Window(0.5, 8)) is None


@pytest.mark.parametrize("rule", CACHE.rules, ids=lambda rule: rule.__name__)
def test_each_rule_has_its_case(rule: Any) -> None:
    name, seen = CASES[rule.__name__]
    found = evidence(stage=3, capabilities={NAME: WELL | seen})

    assert judge(found).verdict.rule == name
    assert judged_without(rule, found) == "stay"


def test_a_cache_that_drops_only_unused_keys_is_healthy() -> None:
    seen = WELL | {"evicted": 500, "hits": 9000, "misses": 700}

    assert judge(evidence(stage=3, capabilities={NAME: seen})).verdict.rule == "stay"


def test_one_slow_command_is_not_reported() -> None:
    seen = WELL | {"slow": 1, "slowest_ms": 80.0, "slowest": "KEYS"}

    assert judge(evidence(stage=3, capabilities={NAME: seen})).verdict.rule == "stay"
