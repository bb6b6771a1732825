# Rung's file: advancing to another stage may change it.
"""Redis as an optimisation: what it does not answer at once is not waited for."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Self, cast

import redis.asyncio as redis
import structlog
from pydantic import PositiveFloat, PositiveInt, RedisDsn
from pydantic_settings import BaseSettings, SettingsConfigDict
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from app.infra.cache.entry import POSITION_LENGTH, Entry

log = structlog.get_logger()

# So many operations in a row that fail, and Redis is left alone until it answers again. A single
# one may be our own fault: a process that was busy for 50 ms finds the answer too late.
FAILURES_IN_A_ROW = 3
PROBE_SECONDS = 0.5
# Name, TLS and login; never while a request waits.
CONNECT_SECONDS = 1.0

# Lookups share one, and what fills the cache waits for another: redis-py's own limit is 100, and a
# burst that opens them all at once is slower than the operations themselves may be.
CONNECTIONS = 16

KEYS_AT_ONCE = 100

# Values begin with their position. What has a greater one is newer, and stays.
PUT_UNLESS_NEWER = f"""
    local there = redis.call('GETRANGE', KEYS[1], 0, {POSITION_LENGTH - 1})
    if string.find(there, '^%x+%.%x+$') and there > string.sub(ARGV[1], 1, {POSITION_LENGTH}) then
        return 0
    end
    redis.call('SET', KEYS[1], ARGV[1], 'PXAT', ARGV[2])
    return 1
"""

type Wanted = dict[str, list[asyncio.Future[bytes | None]]]


class CacheSettings(BaseSettings):
    """Without a URL nothing is cached.

    The server is the cache's own: it may drop any key (maxmemory-policy allkeys-lfu), and login
    sessions do not belong where that can happen.
    """

    model_config = SettingsConfigDict(env_prefix="CACHE_", env_ignore_empty=True)

    url: RedisDsn | None = None
    prefix: str = "app"
    # false: nothing is answered from the cache, and clients are told the positions of their
    # writes already. For the time in which some copies of the app do not know the cache yet.
    reads: bool = True
    operation_seconds: PositiveFloat = 0.05
    # Three quarters of DATABASE_READ_POOL, unless set: the others stay for what is not cached.
    loads: PositiveInt | None = None


@dataclass
class Stats:
    """Counted since the process began."""

    hits: int = 0
    misses: int = 0
    loads: int = 0
    refreshes: int = 0
    failures: int = 0
    bypassed: int = 0


class CacheAway(Exception):
    """Redis did not do it, or not in time."""


class CacheServer:
    def __init__(self, url: RedisDsn, operation_seconds: float) -> None:
        self.stats = Stats()
        self.is_reachable = False
        self._operation_seconds = operation_seconds
        self._client = redis.Redis.from_pool(
            redis.BlockingConnectionPool.from_url(
                str(url),
                max_connections=CONNECTIONS,
                timeout=None,  # every operation has its own limit
                protocol=2,  # 3 knows more than is asked here, and costs each question 20 µs
                socket_timeout=None,
                socket_connect_timeout=CONNECT_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        )
        self._put = self._client.register_script(PUT_UNLESS_NEWER)
        self._wanted: Wanted = {}
        self._asking: asyncio.Task[None] | None = None
        self._failed_in_a_row = 0

    def get(self, key: str) -> Awaitable[bytes | None]:
        """Raises CacheAway. Whoever asks while a question is on its way shares the next one:
        a round trip costs 50 µs of our own, a further key in it 3."""
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._wanted.setdefault(key, []).append(answer)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), context=Context())
        return answer

    async def put(self, key: str, entry: Entry, seconds: float) -> bool:
        """False if what is there is newer. Raises CacheAway.

        By the clock, not from when Redis comes to it: one that hung would else keep it too long.
        """
        arguments = (bytes(entry), _milliseconds(time.time() + seconds))
        return bool(await self._bounded(partial(self._put, keys=[key], args=arguments)))

    async def claim(self, key: str, seconds: float) -> bool:
        """One process gets it. Raises CacheAway."""
        claim = partial(self._client.set, key, "", nx=True, px=_milliseconds(seconds))
        return bool(await self._bounded(claim))

    async def __aenter__(self) -> Self:
        self._probe = asyncio.create_task(self._until_it_answers())
        return self

    async def __aexit__(self, *_: object) -> None:
        running = [task for task in (self._probe, self._asking) if task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        _give_up(self._wanted)
        await self._client.aclose()

    async def _ask(self) -> None:
        try:
            while self._wanted:
                keys = list(islice(self._wanted, KEYS_AT_ONCE))
                await self._answer({key: self._wanted.pop(key) for key in keys})
        finally:
            self._asking = None
            _give_up(self._wanted)

    async def _answer(self, wanted: Wanted) -> None:
        try:
            with suppress(CacheAway):
                values = await self._bounded(partial(self._client.mget, list(wanted)))
                for value, answers in zip(values, wanted.values(), strict=True):
                    for answer in answers:
                        if not answer.done():
                            answer.set_result(cast("bytes | None", value))
        finally:
            _give_up(wanted)

    async def _bounded[T](self, operation: Callable[[], Awaitable[T]]) -> T:
        """Raises CacheAway."""
        if not self.is_reachable:
            raise CacheAway
        try:
            async with asyncio.timeout(self._operation_seconds):
                result = await operation()
        except (TimeoutError, OSError, redis.TimeoutError, redis.ConnectionError) as error:
            self.stats.failures += 1
            self._failed_in_a_row += 1
            if self._failed_in_a_row >= FAILURES_IN_A_ROW:
                self._leave_alone(error)
            raise CacheAway from error
        except redis.RedisError as error:  # It is there and refuses: its memory is full, say.
            self.stats.failures += 1
            raise CacheAway from error
        self._failed_in_a_row = 0
        return result

    def _leave_alone(self, error: Exception) -> None:
        if self.is_reachable:
            self.is_reachable = False
            log.warning("the cache is left alone", reason=str(error) or "no answer in time")
            self._probe = asyncio.create_task(self._until_it_answers(), context=Context())

    async def _until_it_answers(self) -> None:
        tell = log.warning  # once, and why: after that it is the same again and again
        while error := await self._probed():
            tell("the cache does not answer", reason=repr(error))
            tell = log.debug
            await asyncio.sleep(PROBE_SECONDS)
        self._failed_in_a_row = 0
        self.is_reachable = True
        log.info("the cache answers")

    async def _probed(self) -> Exception | None:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._client.ping()
            async with asyncio.timeout(self._operation_seconds):
                await self._client.ping()
        except (TimeoutError, OSError, redis.RedisError) as error:
            self.stats.failures += 1
            return error
        return None


def _give_up(wanted: Wanted) -> None:
    """Whatever has happened, nobody waits for ever."""
    while wanted:
        _, answers = wanted.popitem()
        for answer in answers:
            if not answer.done():
                answer.set_exception(CacheAway())


def _milliseconds(seconds: float) -> int:
    return max(int(seconds * 1000), 1)
