# Rung's file: advancing to another stage may change it.
"""A real Valkey that dies, hangs, comes back, is full or refuses the login."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from typing import Any

import pytest
import redis
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import RedisDsn
from redis.asyncio import ConnectionPool
from structlog.testing import capture_logs

from app.infra.cache.entry import Entry
from app.infra.cache.lookups import KEYS_AT_ONCE, RedisAway
from app.infra.cache.server import CacheServer
from app.infra.own_writes.log_position import Position, encoded
from dev import ports
from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.cache import caching
from tests.infra.cache.caching import NOTES, body, notes_app, serving
from tests.infra.conftest import browser, execute_sql, until

# A busy machine may be slow to answer.
PATIENCE = 10


@pytest.fixture
def server() -> Iterator[valkey.Valkey]:
    with valkey.running("cache") as server:
        yield server


@pytest.fixture(autouse=True)
async def loads(services: Services, monkeypatch: pytest.MonkeyPatch) -> caching.Loads:
    milk = "INSERT INTO notes SELECT n, 'milk' FROM generate_series(1, 100) n"
    await execute_sql(services.database_url, f"{NOTES}; {milk}")
    monkeypatch.setattr(caching, "loads", caching.Loads())
    return caching.loads


@asynccontextmanager
async def connected(server: valkey.Valkey) -> AsyncGenerator[CacheServer]:
    async with CacheServer(RedisDsn(server.url), operation_seconds=PATIENCE) as cache:
        await until(lambda: cache.is_reachable)
        yield cache


@contextmanager
def hanging(server: valkey.Valkey, cache: CacheServer) -> Iterator[None]:
    """The cache waits half a second for a server that hangs, and longer before and after that."""
    cache._seconds = 0.5
    server.hang()
    try:
        yield
    finally:
        cache._seconds = PATIENCE
        server.go_on()


class Load:
    """Clients that read notes one after another."""

    CLIENTS = 8

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._served = [0] * self.CLIENTS
        self.failed: list[str] = []

    async def everybody_is_served(self, times: int = 10) -> None:
        goal = [served + times for served in self._served]
        await until(lambda: all(s >= g for s, g in zip(self._served, goal, strict=True)))

    async def read(self, client: int) -> None:
        async with browser(self._app) as reader:
            while True:
                number = (self._served[client] + client) % 20 + 1
                answer = await reader.get(f"/notes/{number}")
                if answer.status_code != 200 or answer.json()["body"] != "milk":
                    self.failed.append(answer.text)
                self._served[client] += 1


@asynccontextmanager
async def under_load(app: FastAPI) -> AsyncGenerator[Load]:
    load = Load(app)
    readers = [asyncio.create_task(load.read(client)) for client in range(load.CLIENTS)]
    try:
        await load.everybody_is_served()
        yield load
    finally:
        for one in readers:
            one.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


def dies(server: valkey.Valkey) -> Callable[[], object]:
    server.die()
    return server.start


def hangs(server: valkey.Valkey) -> Callable[[], object]:
    server.hang()
    return server.go_on


@pytest.mark.slow
@pytest.mark.parametrize("goes", [dies, hangs])
async def test_no_read_fails_while_redis_is_away_and_it_is_used_again_afterwards(
    server: valkey.Valkey,
    monkeypatch: pytest.MonkeyPatch,
    goes: Callable[[valkey.Valkey], Callable[[], object]],
) -> None:
    monkeypatch.setenv("CACHE_URL", server.url)
    app = notes_app()
    async with serving(app), under_load(app) as load:
        comes_back = await asyncio.to_thread(goes, server)
        try:
            await until(lambda: not app.state.cache.server.is_reachable)
            bypassed = app.state.cache.stats.bypassed
            failures = app.state.cache.server.failures
            await until(lambda: app.state.cache.server.failures > failures)
            await load.everybody_is_served()
            assert app.state.cache.stats.bypassed >= bypassed + 10 * load.CLIENTS
        finally:
            await asyncio.to_thread(comes_back)
        await until(lambda: app.state.cache.server.is_reachable)
        hits = app.state.cache.stats.hits
        await until(lambda: app.state.cache.stats.hits > hits)

    assert load.failed == []


async def test_a_redis_that_never_answers_is_logged_once_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.infra.cache.lookups.PROBE_SECONDS", 0.01)
    nobody = RedisDsn(f"redis://127.0.0.1:{ports.unused()}")
    with capture_logs() as lines:
        async with CacheServer(nobody, operation_seconds=1) as cache:
            await until(lambda: cache.failures >= 5)

    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["event"] for line in warnings] == ["the cache: circuit breaker open"]
    assert "Connect" in warnings[0]["reason"]


async def test_no_read_notices_a_restart_of_redis(
    server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_URL", server.url)
    async with serving(notes_app()) as client:
        assert await body(client, "/notes/1") == "milk"
        server.die()
        server.start()
        assert [await body(client, "/notes/1") for _ in range(5)] == ["milk"] * 5


async def test_a_full_redis_is_read_and_not_written(
    monkeypatch: pytest.MonkeyPatch, loads: caching.Loads
) -> None:
    full = {"maxmemory": "1", "maxmemory-policy": "noeviction"}
    with valkey.running("cache", **full) as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
        app = notes_app()
        async with serving(app) as client:
            assert [await body(client, "/notes/1") for _ in range(5)] == ["milk"] * 5
            assert app.state.cache.server.is_reachable

    assert app.state.cache.server.failures == 5
    assert loads.count == 5


@pytest.mark.slow
async def test_an_entry_that_redis_stores_late_does_not_live_longer(server: valkey.Valkey) -> None:
    async with connected(server) as cache:
        answer = Entry(encoded(Position(1, 1)), 0, b"1")
        await cache.put("begins", answer, 60)  # Redis knows the script from here on.
        with hanging(server, cache), pytest.raises(RedisAway):
            await cache.put("ends", answer, 0.3)  # It ends before the put times out.
        await until(lambda: cache.is_reachable)
        assert await cache.get("begins") is not None
        assert await cache.get("ends") is None


async def test_no_caller_waits_forever_after_an_unexpected_error(
    server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    reported: list[object] = []
    async with connected(server) as cache:
        with monkeypatch.context() as broken:
            loop = asyncio.get_running_loop()
            usual = loop.get_exception_handler()
            loop.set_exception_handler(lambda _, problem: reported.append(problem["exception"]))
            broken.setattr(cache, "values", None)
            asked = [cache.get(f"key {n}") for n in range(2 * KEYS_AT_ONCE)]
            async with asyncio.timeout(300):
                answers = await asyncio.gather(*asked, return_exceptions=True)
            await until(lambda: len(reported) == 1)
            loop.set_exception_handler(usual)
        assert {type(answer) for answer in answers} == {RedisAway}
        assert await cache.get("key 1") is None


async def test_commands_that_one_pause_makes_late_are_one_failure(server: valkey.Valkey) -> None:
    async with connected(server) as cache:
        with hanging(server, cache):
            late = [cache.claim(f"key {number}", 1) for number in range(5)]
            answers = await asyncio.gather(*late, return_exceptions=True)

        assert {type(answer) for answer in answers} == {RedisAway}
        assert cache.is_reachable


async def test_a_lookup_fails_when_the_process_ends(server: valkey.Valkey) -> None:
    async with connected(server) as cache:
        waiting = [cache.get("one"), cache.get("two")]

    async with asyncio.timeout(300):
        answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {RedisAway}


async def test_when_a_server_is_gone_without_a_word_all_its_connections_are_replaced(
    server: valkey.Valkey,
) -> None:
    """Its machine has lost its power, say, and its name leads to another server now."""
    opened: set[object] = set()
    gone: set[object] = set()
    is_away = False

    async def forward(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        redis_, requests = await asyncio.open_connection("127.0.0.1", server.port)
        with closing(answers), closing(requests):
            opened.add(requests)
            await asyncio.gather(pump(client, requests, requests), pump(redis_, answers, requests))

    async def pump(
        source: asyncio.StreamReader, to: asyncio.StreamWriter, connection: object
    ) -> None:
        while part := await source.read(2**16):
            if not is_away and connection not in gone:
                to.write(part)
        to.close()

    listener = await asyncio.start_server(forward, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    url = RedisDsn(server.url.replace(f":{server.port}", f":{port}"))
    async with listener, CacheServer(url, operation_seconds=PATIENCE) as cache:

        async def claims() -> list[bool]:
            return await asyncio.gather(*(cache.claim(secrets.token_hex(8), 60) for _ in range(8)))

        await until(lambda: cache.is_reachable)
        assert await claims() == [True] * 8
        is_away, cache._seconds = True, 0.5
        while cache.is_reachable:
            with suppress(RedisAway):
                await cache.claim("one", 60)
        gone, is_away, cache._seconds = opened.copy(), False, PATIENCE
        await until(lambda: cache.is_reachable)
        assert await claims() == [True] * 8


async def test_a_process_ends_while_redis_hangs(
    server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over TLS: redis-py waits for the server's last message, and raises after a second."""

    aclose = ConnectionPool.aclose

    async def close_late(pool: Any) -> None:
        await aclose(pool)
        raise redis.TimeoutError

    monkeypatch.setattr(ConnectionPool, "aclose", close_late)
    async with connected(server):
        pass


@pytest.mark.parametrize("away", ["redis://127.0.0.1:{unused}", "redis://:wrong@127.0.0.1:{port}"])
async def test_a_process_starts_and_serves_without_redis(
    server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    monkeypatch.setenv("CACHE_URL", away.format(unused=ports.unused(), port=server.port))
    app = notes_app()
    async with app.router.lifespan_context(app), browser(app) as client:
        assert [await body(client, "/notes/1") for _ in range(2)] == ["milk"] * 2
        assert (await client.put("/notes/1/bread?invalidate=true")).status_code == 200
        assert await body(client, "/notes/1") == "bread"

    assert app.state.cache.stats.bypassed == 3


async def test_at_most_cache_loads_reads_go_past_the_cache_at_once(
    server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch, loads: caching.Loads
) -> None:
    monkeypatch.setenv("CACHE_URL", server.url)
    monkeypatch.setenv("CACHE_LOADS", "3")
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")

    async def read_all(client: AsyncClient) -> list[str | None]:
        return await asyncio.gather(*(body(client, f"/notes/{n}") for n in range(1, 51)))

    async with serving(notes_app()) as client:
        assert await read_all(client) == ["milk"] * 50
    assert loads.most_at_once <= 3
    assert loads.count == 50

    monkeypatch.setenv("CACHE_URL", f"redis://127.0.0.1:{ports.unused()}")
    app = notes_app()
    async with app.router.lifespan_context(app), browser(app) as client:
        assert await read_all(client) == ["milk"] * 50
    assert loads.most_at_once <= 3
