# Rung's file: advancing to another stage may change it.
"""The cache's Redis. It is an optimisation, so no request waits long for its answer."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

from pydantic import RedisDsn
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.infra.cache.entry import STORED, Entry
from app.infra.cache.lookups import CONNECT_SECONDS, CONNECTION_LOST, RedisLookups, RedisUrl
from app.infra.environment import Count, Seconds
from app.infra.own_writes.log_position import ENCODED_IN_LUA, ENCODED_LENGTH
from app.infra.telemetry.metrics import Instrument

# Lookups share one connection; the others are for what fills the cache. With redis-py's own limit
# of 100 a burst opens them all at once, which takes longer than an operation may.
CONNECTIONS = 16

# A value begins with its position. An entry with a greater position is newer, and stays. Any other
# value is replaced. pcall, because the key may hold another type.
PUT_UNLESS_NEWER = f"""
    local there = redis.pcall('GETRANGE', KEYS[1], 0, {ENCODED_LENGTH - 1})
    if type(there) == 'string' and string.find(there, '{ENCODED_IN_LUA}')
        and there > string.sub(ARGV[1], 1, {ENCODED_LENGTH}) then
        return 0
    end
    local now = redis.call('TIME')
    local latest = now[1] * 1000 + now[2] / 1000 + ARGV[3]
    redis.call('SET', KEYS[1], ARGV[1], 'PXAT', math.floor(math.min(ARGV[2], latest)))
    return 1
"""


class CacheSettings(BaseSettings):
    """Without a URL nothing is cached.

    The server is for the cache alone: it may drop any key (maxmemory-policy allkeys-lfu), and login
    sessions do not belong where that can happen.
    """

    model_config = SettingsConfigDict(env_prefix="CACHE_")

    url: RedisUrl | None = None
    prefix: str = "app"
    # false: the cache answers nothing, but positions are noted already. Use it while some copies of
    # the app do not know the cache yet.
    reads: bool = True
    operation_seconds: Seconds = 0.05
    # Reads of Postgres at once past the cache. By default seven eighths of DATABASE_READ_POOL:
    # the others stay for reads that are not cached.
    loads: Count | None = None


@dataclass
class Stats:
    """Counted since the process began."""

    server: RedisLookups
    hits: int = 0
    misses: int = 0
    loads: int = 0
    refreshes: int = 0
    bypassed: int = 0

    @property
    def results(self) -> dict[str, int]:
        return {"hit": self.hits, "miss": self.misses, "bypassed": self.bypassed}


def metrics_of(stats: Stats) -> Iterator[Instrument]:
    """deploy/telemetry/ shows these metrics and raises alerts on them."""
    yield Instrument(
        "cache.lookups",
        "{lookup}",
        "Results of lookups; bypassed, when the cache is not used",
        "counter",
        lambda: [(number, {"cache.result": name}) for name, number in stats.results.items()],
    )
    yield Instrument(
        "cache.refreshes",
        "{refresh}",
        "Answers that were read again before they expired",
        "counter",
        lambda: [(stats.refreshes, {})],
    )
    yield Instrument(
        "cache.failures",
        "{operation}",
        "Operations that the cache did not do, or not in time",
        "counter",
        lambda: [(stats.server.failures, {})],
    )


class CacheServer(RedisLookups):
    name = "the cache"
    # One failure may come from this process: if it was busy for 50 ms, it sees the answer too late.
    failures_in_a_row = 3
    counted = CONNECTION_LOST

    def __init__(self, url: RedisDsn, operation_seconds: float, prefix: str = "app") -> None:
        pool = BlockingConnectionPool.from_url(
            str(url),
            max_connections=CONNECTIONS,
            timeout=None,  # each operation has a limit
            protocol=2,  # RESP3 costs 20 µs more a command, and nothing here needs it
            socket_timeout=None,
            socket_connect_timeout=CONNECT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        super().__init__(Redis.from_pool(pool), operation_seconds, prefix)

    async def put(self, key: str, entry: Entry, seconds: float) -> bool:
        """False if the entry there is newer. Raises RedisAway.

        The expiry is a time of day. A duration would start only when a server that hung continues.
        It also limits the expiry: one clock that is an hour ahead would keep it for all processes.
        """
        arguments = (STORED % entry, int((time.time() + seconds) * 1000), int(seconds * 1000))
        # Not by EVALSHA: it needs SCRIPT LOAD, and the probe does not check that right.
        return bool(await self.run(self.client.eval(PUT_UNLESS_NEWER, 1, key, *arguments)))

    async def claim(self, key: str, seconds: float) -> bool:
        """Only one process gets the right to refresh. Raises RedisAway."""
        claim = self.client.set(key, "", nx=True, px=max(int(seconds * 1000), 1))
        return bool(await self.run(claim))

    async def __aenter__(self) -> Self:
        self.pause()  # until the first probe: no request waits for a first connection
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
