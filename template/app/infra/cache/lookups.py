# Rung's file: advancing to another stage may change it.
"""Redis for the cache and the sessions: shared lookups, a time limit and a circuit breaker."""

import asyncio
import math
import time
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import Context
from inspect import iscoroutine
from itertools import islice
from types import NoneType
from typing import Annotated, Any, ClassVar

import redis
import structlog
from pydantic import AfterValidator, RedisDsn
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection

from app.infra.direct_postgres import refuse_cut
from app.infra.failures import Unavailable, reason_of

log = structlog.get_logger()

KEYS_AT_ONCE = 100

PROBE_SECONDS = 0.5
# DNS, TLS and login. Only a probe waits this long, never a request.
CONNECT_SECONDS = 1.0

TIMEOUTS = (TimeoutError, redis.TimeoutError)
CONNECTION_LOST = (*TIMEOUTS, OSError, redis.ConnectionError)

# READONLY, LOADING, CLUSTERDOWN and MASTERDOWN. redis-py has no class for NOREPLICAS.
WRONG_SERVER = (redis.ReadOnlyError, redis.BusyLoadingError, redis.exceptions.ClusterDownError)

# redis-py raises these when another server answers, or a proxy mixes up answers.
ODD_ANSWER = (redis.InvalidResponse, AttributeError, LookupError, TypeError, ValueError)

# A cluster splits the keys of one command, and redis-py's plain client does not follow it.
CLUSTER = (redis.exceptions.ClusterCrossSlotError, redis.exceptions.MovedError)

type Waiting = dict[str, list[asyncio.Future[bytes | None]]]


def _checked(url: RedisDsn) -> RedisDsn:
    refuse_cut(url)
    if (number := (url.path or "").strip("/")) and not number.isdecimal():
        raise ValueError("the path must be the number of a database, such as /0")
    try:
        pool = BlockingConnectionPool.from_url(str(url))
        connection = pool.make_connection()  # type: ignore[no-untyped-call]  # not connected yet
        if isinstance(connection, SSLConnection):
            connection.ssl_context.get()  # reads the files
    except OSError as error:
        raise ValueError(f"a file of ssl_ca_certs, ssl_certfile…: {error}") from None
    except (redis.RedisError, TypeError, ValueError) as error:
        raise ValueError(f"redis-py: {error}") from None
    return url


# The cache and the login sessions use EVAL, MGET and DEL. A user of Redis needs these rights.
READS_AND_WRITES_NOTHING = "redis.call('MGET', unpack(KEYS)) return redis.call('DEL', unpack(KEYS))"

# redis-py would refuse a wrong parameter only when it connects.
RedisUrl = Annotated[RedisDsn, AfterValidator(_checked)]


class RedisAway(Unavailable):
    """Redis refused, timed out, or the circuit breaker is open after a recent failure."""


class RedisLookups:
    """After `failures_in_a_row` of the `counted` errors, only probes ask Redis until one succeeds.

    An answer from the wrong server, as after a failover, or from a server that is no Redis, has the
    same effect at once. The pooled connections are then dropped, so that the next one resolves the
    name again.
    """

    name: ClassVar[str]
    failures_in_a_row: ClassVar[int]
    counted: ClassVar[tuple[type[Exception], ...]]
    probe: ClassVar[str] = READS_AND_WRITES_NOTHING

    def __init__(self, client: Redis, seconds: float, prefix: str) -> None:
        self.is_reachable = True
        self.failures = 0
        self.client = client
        self._seconds = seconds
        # Two keys, because a cluster refuses two keys in one command, but would accept one.
        self._unused = f"{prefix}:nobody-writes-this-key", f"{prefix}:nor-this-one"
        self._failed_in_a_row = 0
        self._failed_at = -math.inf
        self._waiting: Waiting = {}
        self._asking: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    def get(self, key: str) -> Awaitable[bytes | None]:
        """Raises RedisAway.

        Callers that arrive during a lookup share the next one: a round trip costs 50 µs of CPU,
        each further key in it 3 µs.
        """
        answer: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append(answer)
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), context=Context())
        return answer

    async def run[T](self, command: Awaitable[T]) -> T:
        """Raises RedisAway."""
        if not self.is_reachable:
            if iscoroutine(command):
                command.close()  # Python would warn that nobody awaited it
            raise RedisAway(f"{self.name}: it did not answer a moment ago")
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await command
        except (OSError, redis.RedisError, *ODD_ANSWER) as error:  # TimeoutError is an OSError
            await self._note_failure(error, began)
            raise RedisAway(f"{self.name}: {_reason_of(error)}") from error
        self._failed_in_a_row = 0
        return answer

    async def values(self, keys: list[str]) -> list[bytes | None]:
        """Call this through run(). Redis reports a key of another type as missing."""
        values = values_in(await self.client.mget(keys))
        if len(values) != len(keys):
            raise ValueError("its answer has another number of values")
        return values

    async def check(self) -> None:
        """Raises RedisAway, also when Redis answers but takes no writes."""
        await self.run(self._write_nothing())

    def pause(self, error: Exception | None = None) -> None:
        """Refuse everything until a probe succeeds."""
        self.is_reachable = False
        if self._probing is None:
            self._probing = asyncio.create_task(self._probe(error), context=Context())

    async def aclose(self) -> None:
        running = [task for task in (self._probing, self._asking) if task]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        self._give_up(self._waiting)
        with suppress(OSError, redis.RedisError):  # over TLS, a server that hangs
            await self.client.aclose()

    async def _ask(self) -> None:
        batch: Waiting = {}
        try:
            while self._waiting:
                keys = list(islice(self._waiting, KEYS_AT_ONCE))
                batch = {key: self._waiting.pop(key) for key in keys}
                try:
                    values = await self.run(self.values(keys))
                except RedisAway as error:
                    self._give_up(batch, str(error))
                    continue
                for value, answers in zip(values, batch.values(), strict=True):
                    for answer in answers:
                        if not answer.done():
                            answer.set_result(value)
                batch = {}
        finally:
            self._asking = None
            if batch or self._waiting:  # also after an error: otherwise a caller waits forever
                self._give_up(batch)
                self._give_up(self._waiting)

    async def _note_failure(self, error: Exception, began: float) -> None:
        self.failures += 1
        if _is_wrong_server(error):
            self.pause(error)
            await self._drop_connections()
        # Commands that waited at the same time are one failure: one pause makes them all late.
        elif isinstance(error, self.counted) and began >= self._failed_at:
            self._failed_in_a_row += 1
            self._failed_at = time.monotonic()
            if self._failed_in_a_row >= self.failures_in_a_row:
                self.pause(error)

    async def _probe(self, error: Exception | None) -> None:
        self._warn(error)
        # After a failover, pooled connections may lead to a server that has closed none of them.
        await self._drop_connections()
        while failure := await self._probe_failure():
            if error is None:
                self._warn(failure)
                error = failure
            await asyncio.sleep(PROBE_SECONDS)
        self._failed_in_a_row = 0
        self._probing = None
        self.is_reachable = True
        log.info(f"{self.name} answers")

    async def _probe_failure(self) -> Exception | None:
        try:
            for seconds in (max(CONNECT_SECONDS, self._seconds), self._seconds):
                async with asyncio.timeout(seconds):
                    await self._write_nothing()
        except (OSError, redis.RedisError, *ODD_ANSWER) as error:
            self.failures += 1
            if _is_wrong_server(error):
                await self._drop_connections()
            return error
        return None

    def _warn(self, error: Exception | None) -> None:
        if error:
            log.warning(f"{self.name}: circuit breaker open", reason=_reason_of(error))

    async def _drop_connections(self) -> None:
        pool = self.client.connection_pool
        await pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
        with suppress(OSError, redis.RedisError):
            await pool.disconnect(inuse_connections=False)

    def _write_nothing(self) -> Awaitable[Any]:
        """A PING would succeed on a replica that refuses writes, and for a user without rights."""
        return self.client.eval(self.probe, 2, *self._unused)

    def _give_up(self, waiting: Waiting, reason: str = "") -> None:
        while waiting:
            _, answers = waiting.popitem()
            for answer in answers:
                if not answer.done():
                    answer.set_exception(RedisAway(reason or f"{self.name}: given up"))


def values_in(answer: Any) -> list[bytes | None]:
    """Raises TypeError, which run() takes for the answer of another server."""
    if type(answer) is not list or not {type(value) for value in answer} <= {bytes, NoneType}:
        raise TypeError("its answer is no list of values")
    values: list[bytes | None] = answer
    return values


def _reason_of(error: Exception) -> str:
    if isinstance(error, CLUSTER):
        return "it is a cluster, and the app needs a server with cluster mode off"
    if "near '#'" in str(error):  # of the first line of a script: #!lua
        return "it is too old: use Redis 7 or Valkey 8, or newer"
    # With the type of the error, because a mistake in a command raises the same type.
    return repr(error) if isinstance(error, ODD_ANSWER) else reason_of(error)


def _is_wrong_server(error: Exception) -> bool:
    return isinstance(error, (*WRONG_SERVER, *ODD_ANSWER)) or "NOREPLICAS" in str(error)
