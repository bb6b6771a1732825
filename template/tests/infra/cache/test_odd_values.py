# Rung's file: advancing to another stage may change it.
"""The cache holds values that it never stored: of another type, cut off, or of a later version."""

import asyncio
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from structlog.testing import capture_logs

from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.cache.caching import NOTES, body, notes_app, serving
from tests.infra.conftest import execute_sql


@pytest.fixture
def redis(monkeypatch: pytest.MonkeyPatch) -> Iterator[Redis]:
    with valkey.running("cache") as server, Redis.from_url(server.url) as redis:
        monkeypatch.setenv("CACHE_URL", server.url)
        monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
        yield redis


@pytest.fixture(autouse=True)
async def notes(services: Services) -> None:
    await execute_sql(services.database_url, NOTES)
    await execute_sql(services.database_url, "INSERT INTO notes VALUES (1, 'milk')")


def text(change: Callable[[bytes], bytes]) -> Callable[[Redis, str], object]:
    def store(redis: Redis, key: str) -> object:
        held = redis.get(key)
        assert isinstance(held, bytes)
        return redis.set(key, change(held))

    return store


def other_type(add: Callable[[Redis, str], object]) -> Callable[[Redis, str], object]:
    return lambda redis, key: (redis.delete(key), add(redis, key))


ENORMOUS = b'{"number": 1, "body": "milk", "tags": [], "views": 1%b}' % (b"0" * 9999)
ODD_VALUES = {
    "a list": other_type(lambda redis, key: redis.lpush(key, "milk")),
    "a set": other_type(lambda redis, key: redis.sadd(key, "milk")),
    "a sorted set": other_type(lambda redis, key: redis.zadd(key, {"milk": 1})),
    "a hash": other_type(lambda redis, key: redis.hset(key, "milk", "1")),
    "a stream": other_type(lambda redis, key: redis.xadd(key, {"milk": "1"})),
    "a number": text(lambda _: b"5"),
    "nothing": text(lambda _: b""),
    "no UTF-8": text(lambda _: b"\xff\xfe"),
    "cut off in its position": text(lambda held: held[:12]),
    "cut off in its JSON": text(lambda held: held[:-4]),
    "no JSON": text(lambda held: held.replace(b"{", b"<")),
    "no UTF-8 in its JSON": text(lambda held: held.replace(b"milk", b"\xff\xfe")),
    "another shape": text(lambda held: held.replace(b'"body"', b'"text"')),
    "another type in its JSON": text(lambda held: held.replace(b'"milk"', b"5")),
    "another version": text(lambda held: b"v2:" + held),
    "a greater position of another form": text(lambda _: b"f." + b"f" * 40),
    "deep": text(lambda held: held.replace(b'"milk"', b"[" * 10_000)),
    "an enormous number": text(lambda held: held[:27] + b"0 " + ENORMOUS),
}


@pytest.mark.parametrize("store", ODD_VALUES.values(), ids=ODD_VALUES.keys())
async def test_an_odd_value_is_replaced_by_the_answer_of_postgres(
    redis: Redis, store: Callable[[Redis, str], object]
) -> None:
    app = notes_app()
    async with serving(app) as client:
        stats = app.state.cache.stats

        async def read_until_it_is_cached() -> None:
            hits = stats.hits
            async with asyncio.timeout(300):
                while stats.hits == hits:
                    assert await body(client, "/notes/1") == "milk"

        await read_until_it_is_cached()
        (key,) = redis.scan_iter("*note:*")

        store(redis, key.decode())
        with capture_logs() as lines:
            await read_until_it_is_cached()

        assert app.state.cache.server.is_reachable
    assert len([line for line in lines if line["log_level"] == "warning"]) <= 1
