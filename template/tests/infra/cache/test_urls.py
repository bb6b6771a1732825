# Rung's file: advancing to another stage may change it.
"""A URL that redis-py cannot use stops the start, and a server in cluster mode is named."""

import certifi
import pytest
from pydantic import RedisDsn
from redis import Redis
from structlog.testing import capture_logs

from app.infra import environment
from app.infra.cache.entry import tombstone
from app.infra.cache.server import CacheServer, CacheSettings
from app.infra.environment import EnvironmentIncomplete
from app.infra.own_writes.log_position import NOT_KNOWN
from dev.cache import valkey
from tests.infra.cache.failover import one_shard
from tests.infra.conftest import until


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("rediss://:secret@nowhere/0?ssl_cert_reqs=CERT_NONE", "CERT_NONE"),
        ("redis://:secret@nowhere/0?ssl_cert_reqs=none", "ssl_cert_reqs"),
        ("rediss://:secret@nowhere/0?ssl_cert_req=none", "ssl_cert_req"),
        ("redis://:secret@nowhere/0?db=first", "'db'"),
        ("rediss://:secret@nowhere/0?ssl_ca_certs=/nowhere.pem", "ssl_ca_certs"),
        (f"rediss://:secret@nowhere/0?ssl_certfile={__file__}", "ssl_certfile"),
        ("redis://:secret@nowhere/cache", "such as /0"),
        ("redis://ada:1#secret@nowhere/0", "%23"),
        ("redis://ada:?secret@nowhere/0", "%3F"),
        ("redis://ada:0/secret@nowhere/0", "%2F"),
        ("redis://:/secret@nowhere/0", "%2F"),
        ("redis+sentinel://:secret@nowhere/0", "'rediss'"),
    ],
)
def test_a_url_that_redis_py_cannot_use_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, url: str, advice: str
) -> None:
    monkeypatch.setenv("CACHE_URL", url)

    with pytest.raises(EnvironmentIncomplete, match="  CACHE_URL: ") as stopped:
        environment.read(CacheSettings)

    assert advice in str(stopped.value)
    assert "secret" not in str(stopped.value)


@pytest.mark.parametrize(
    "url",
    [
        "rediss://default:pass%2Fword@nowhere:25061",
        "rediss://nowhere:6379/",
        "rediss://:password@nowhere:6380/3?ssl_cert_reqs=none&timeout=2",
        f"rediss://ada@nowhere?ssl_ca_certs={certifi.where()}",
        "rediss://ada@nowhere?ssl_exclude_verify_flags=VERIFY_X509_STRICT",
    ],
)
def test_a_url_of_a_hosting_provider_is_accepted(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("CACHE_URL", url)

    assert environment.read(CacheSettings).url


async def test_a_server_in_cluster_mode_is_not_used_and_named_in_the_log() -> None:
    with one_shard("cache") as server, capture_logs() as lines:
        async with CacheServer(RedisDsn(server.url), operation_seconds=5) as cache:
            await until(lambda: bool(lines))
            assert not cache.is_reachable

    assert lines[0]["reason"] == "it is a cluster, and the app needs a server with cluster mode off"


async def test_a_user_with_few_rights_and_the_keys_of_the_prefix_can_use_the_cache() -> None:
    with valkey.running("cache") as server, Redis.from_url(server.url) as client:
        rights = ("~shop:*", "+@all", "-@admin", "-@dangerous", "-client", "-script", "-evalsha")
        client.execute_command("ACL", "SETUSER", "ada", "on", ">password", *rights)
        url = RedisDsn(f"redis://ada:password@127.0.0.1:{server.port}/0")
        async with CacheServer(url, operation_seconds=5, prefix="shop") as cache:
            await until(lambda: cache.is_reachable)
            assert await cache.claim("shop:claim", 1)
            assert await cache.put("shop:key", tombstone(NOT_KNOWN), 1)


@pytest.mark.parametrize("missing", ["-mget", "-eval", "-del"])
async def test_a_user_who_lacks_a_right_is_named_in_the_log(missing: str) -> None:
    with valkey.running("cache") as server, Redis.from_url(server.url) as client:
        client.execute_command("ACL", "SETUSER", "ada", "on", ">password", "~*", "+@all", missing)
        url = RedisDsn(f"redis://ada:password@127.0.0.1:{server.port}/0")
        with capture_logs() as lines:
            async with CacheServer(url, operation_seconds=5) as cache:
                await until(lambda: bool(lines))
                assert not cache.is_reachable

    assert missing[1:] in lines[0]["reason"]
