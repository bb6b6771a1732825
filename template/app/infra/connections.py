# Rung's file: advancing to another stage may change it.
"""Connections to Postgres: for one statement at a time, for transactions, and for commands."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import ExitStack, suppress
from typing import Any, cast

import asyncpg
from pydantic import PostgresDsn
from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_dbapi,
)
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry
from sqlalchemy.pool.base import PoolProxiedConnection
from sqlalchemy.util.queue import AsyncAdaptedQueue

from app.infra.database_use import this_request, time_statements
from app.infra.direct_postgres import WITH_A_POOLER
from app.infra.failures import CANNOT_CONNECT, CONNECTION_LOST, NotConnected, reason_of
from app.infra.postgres import DatabaseSettings, open_connection
from app.infra.read_pool import IDLE_SECONDS, InOrder, ReadPool
from app.infra.reads import prepare_reading_connection

__all__ = ["DatabaseSettings", "close_in_time", "connect", "reading_pool", "transaction_engine"]

CLOSE_POOL_SECONDS = 1.0


async def connect(
    settings: DatabaseSettings, url: PostgresDsn, *, read_only: bool = False, **options: Any
) -> asyncpg.Connection:
    """Raises NotConnected."""
    try:
        return await open_connection(settings, url, read_only, options)
    except CANNOT_CONNECT as error:
        why = f"Postgres: no connection could be opened: {reason_of(error)}"
        if "startup parameter" in why:
            why = f"{why}: {WITH_A_POOLER}"
        raise NotConnected(why) from error


def reading_pool(settings: DatabaseSettings, url: PostgresDsn) -> ReadPool:
    """Opens no connection yet, so that a process can start (unready) while Postgres is down."""

    async def connect_for_reading() -> asyncpg.Connection:
        connection = await connect(settings, url, read_only=True)
        with ExitStack() as on_failure:
            on_failure.callback(connection.terminate)
            await _refuse_if_it_can_write(connection)
            await prepare_reading_connection(connection)
            on_failure.pop_all()
        return connection

    return ReadPool(connect_for_reading, settings.read_pool)


async def _refuse_if_it_can_write(connection: asyncpg.Connection) -> None:
    """Some poolers drop the settings of a session. Postgres reports this one without a question."""
    reported = getattr(connection.get_settings(), "default_transaction_read_only", "off")
    if reported == "off" and await connection.fetchval("SHOW transaction_read_only") == "off":
        raise NotConnected(f"Postgres: a read could write: {WITH_A_POOLER}")


class _PoolQueue(AsyncAdaptedQueue[Any]):
    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._queue = InOrder[Any](maxsize)


class FairPool(AsyncAdaptedQueuePool):
    """Serves the request that has waited longest, and measures the wait for the log line."""

    _queue_class = _PoolQueue

    def connect(self) -> PoolProxiedConnection:
        asked = time.perf_counter()
        try:
            return super().connect()
        finally:
            this_request.get().wait_seconds += time.perf_counter() - asked

    def expire_connections(self, once_in: float) -> bool:
        """Each older connection is replaced at its next use. Returns False if the last time was
        less than `once_in` seconds ago."""
        now = time.time()
        if 0 < now - self._invalidate_time < once_in:
            return False
        self._invalidate_time = now
        return True


def transaction_engine(settings: DatabaseSettings) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        poolclass=FairPool,
        connect_args={
            "async_creator_fn": lambda: connect(settings, settings.url),
            **settings.engine_options,
        },
        pool_size=settings.write_pool,
        max_overflow=0,
        pool_timeout=settings.pool_wait_seconds,
        pool_recycle=IDLE_SECONDS,  # from its opening on, so it is never idle for longer
        hide_parameters=True,  # in errors, and so in the log
    )
    event.listen(engine.sync_engine, "checkout", _begin)
    time_statements(engine)
    return engine


def _begin(connection: AsyncAdapt_asyncpg_connection, entry: ConnectionPoolEntry, _: Any) -> None:
    """In place of pool_pre_ping, which takes three round trips before the first statement. The
    BEGIN has to be sent anyway, and it fails when the connection is lost: SQLAlchemy then replaces
    the connection."""
    memory = cast("dict[str, bool]", entry.record_info)  # outlives the connection
    try:
        connection.run_async(lambda _: connection._start_transaction())  # type: ignore[no-untyped-call]
    except TimeoutError:  # which is an OSError
        raise
    except (AsyncAdapt_asyncpg_dbapi.Error, *CONNECTION_LOST) as error:
        if memory.pop("replaced", False):
            raise NotConnected("Postgres: new connections are closed at once") from error
        memory["replaced"] = True
        raise InvalidatePoolError from error
    memory.pop("replaced", None)


async def close_in_time(closing: Awaitable[None]) -> None:
    """Limits the time, because the process must end even if the server does not answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_POOL_SECONDS):
            await closing
