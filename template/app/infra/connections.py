# Rung's file: advancing to another stage may change it.
"""Connections to Postgres: for one statement at a time, for transactions, and for commands."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import asyncpg
from pydantic import PostgresDsn
from sqlalchemy.ext.asyncio import AsyncEngine

from app.infra.database_use import TimedPool, time_statements
from app.infra.failures import CANNOT_CONNECT, NotConnected
from app.infra.postgres import DatabaseSettings, open_connection, transaction_engine_with
from app.infra.reads import leave_as_it_is, prepare_reading_connection

__all__ = ["DatabaseSettings", "close_in_time", "connect", "reading_pool", "transaction_engine"]

# For all connections of a pool together. No request uses them at that time.
CLOSE_SECONDS = 1.0


async def connect(
    settings: DatabaseSettings, url: PostgresDsn, *, read_only: bool = False, **options: Any
) -> asyncpg.Connection:
    """Raises NotConnected."""
    try:
        return await open_connection(settings, url, read_only, options)
    except CANNOT_CONNECT as error:
        reason = str(error) or "no answer in time"
        raise NotConnected(f"Postgres: no connection could be opened: {reason}") from error


async def reading_pool(settings: DatabaseSettings, url: PostgresDsn) -> asyncpg.Pool:
    """Opens no connection yet, so that a process can start (unready) while Postgres is away."""

    async def connect_for_reading(*_: Any, **pool_options: Any) -> asyncpg.Connection:
        return await connect(settings, url, read_only=True, **pool_options)

    return await asyncpg.create_pool(
        min_size=0,
        max_size=settings.read_pool,
        connect=connect_for_reading,
        init=prepare_reading_connection,
        reset=leave_as_it_is,
    )


def transaction_engine(settings: DatabaseSettings) -> AsyncEngine:
    engine = transaction_engine_with(settings, lambda: connect(settings, settings.url), TimedPool)
    time_statements(engine)
    return engine


async def close_in_time(closing: Awaitable[None]) -> None:
    """Limits the time, because the process must end even if the server does not answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(CLOSE_SECONDS):
            await closing
