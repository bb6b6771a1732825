# Rung's file: advancing to another stage may change it.
"""The cache's Redis fails over, or takes no writes."""

import asyncio
from collections.abc import Iterator

import pytest
import redis
from pydantic import RedisDsn
from structlog.testing import capture_logs

from app.infra.cache.lookups import RedisAway
from app.infra.cache.server import CacheServer
from dev.cache import valkey
from dev.cache.valkey import Valkey
from dev.pytest_plugin import Services
from tests.infra.cache import caching
from tests.infra.cache.caching import NOTES, body, notes_app, put, serving
from tests.infra.cache.failover import ODD_ANSWERS, REFUSALS, name_of, two_servers
from tests.infra.conftest import execute_sql, until


@pytest.fixture
def servers() -> Iterator[tuple[Valkey, Valkey]]:
    with two_servers("cache") as servers:
        yield servers


@pytest.fixture
async def notes(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty table, and its reads counted from zero."""
    await execute_sql(services.database_url, NOTES)
    monkeypatch.setattr(caching, "loads", caching.Loads())


@pytest.mark.usefixtures("notes")
async def test_the_cache_fills_again_after_a_failover(
    servers: tuple[Valkey, Valkey], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    async with name_of(*servers) as name:
        monkeypatch.setenv("CACHE_URL", name.url)
        app = notes_app()
        async with serving(app) as client:
            await put(client, 1, "milk")
            await asyncio.gather(*(body(client, "/notes/1") for _ in range(20)))

            with capture_logs() as lines:
                name.leads_to = name.new
                name.demote_old()
                await put(client, 1, "bread", invalidate=True)
                await until(lambda: app.state.cache.server.is_reachable)
                # Nothing is cached while a transaction of another test is open.
                stats = app.state.cache.stats
                hits = stats.hits
                async with asyncio.timeout(300):
                    while stats.hits == hits:
                        assert await body(client, "/notes/1") == "bread"
            with redis.Redis.from_url(name.new.url) as new:
                assert list(new.scan_iter("*:*"))
    words = [line["event"] for line in lines if line["event"].startswith("the cache")]
    assert words == ["the cache: circuit breaker open", "the cache answers"]


@pytest.mark.parametrize("refusal", ["READONLY", "NOREPLICAS"])
async def test_a_server_that_refuses_writes_is_not_asked_again_at_once(refusal: str) -> None:
    with (
        valkey.running("cache") as server,
        redis.Redis.from_url(server.url) as client,
        capture_logs() as lines,
    ):
        async with CacheServer(RedisDsn(server.url), operation_seconds=5) as cache:
            await until(lambda: cache.is_reachable)
            if refusal == "READONLY":
                client.replicaof("127.0.0.1", 1)
            else:
                client.config_set("min-replicas-to-write", 1)

            with pytest.raises(RedisAway):
                await cache.claim("key", 1)
            with pytest.raises(RedisAway, match="a moment ago"):
                await cache.get("key")
            failures = cache.failures
            await until(lambda: cache.failures > failures)
            assert not cache.is_reachable

            client.replicaof("NO", "ONE")
            client.config_set("min-replicas-to-write", 0)
            await until(lambda: cache.is_reachable)
            assert await cache.claim("key", 1)

    warnings = [line["event"] for line in lines if line["log_level"] == "warning"]
    assert warnings == ["the cache: circuit breaker open"]


@pytest.mark.usefixtures("notes")
async def test_no_answer_of_the_cache_fails_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.infra.cache.lookups.PROBE_SECONDS", 0.01)
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")  # a pause of the machine is no failure
    with valkey.running("cache") as server:
        async with name_of(server, server) as name:
            monkeypatch.setenv("CACHE_URL", name.url)
            app = notes_app()
            async with serving(app) as client:
                for number, answer in enumerate([*REFUSALS, *ODD_ANSWERS]):
                    await until(lambda: app.state.cache.server.is_reachable)
                    name.answer, before = answer, name.answered
                    await put(client, 1, f"bread {number}", invalidate=True)
                    assert await body(client, "/notes/1") == f"bread {number}", answer
                    assert name.answered > before
                    name.answer = b""
