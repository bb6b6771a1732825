# Rung's file: advancing to another stage may change it.
"""How a connection is opened, through the pooler or past it."""

import asyncio
import time
from contextlib import ExitStack
from typing import Any

import asyncpg
from pydantic import PostgresDsn

from app.infra import direct_postgres
from app.infra.pooling.settings import PooledSettings
from app.infra.reads import NotConnected

RETRY_SECONDS = 0.05


async def open_connection(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    options = {"statement_cache_size": settings.statement_cache, **options}
    if settings.pooled and url != settings.direct_url:
        return await _retried(settings, url, read_only, options)
    return await direct_postgres.open_connection(settings, url, read_only, options)


async def _retried(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    """Waits for a pooler that is being restarted: no statement was sent, so none is lost."""
    deadline = time.monotonic() + settings.connect_seconds
    while True:
        try:
            return await _through_the_pooler(settings, url, read_only, options)
        except TimeoutError:  # which is an OSError
            raise
        except (OSError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError) as error:
            if time.monotonic() > deadline:
                raise NotConnected(f"Postgres: the pooler takes no connection: {error}") from error
        await asyncio.sleep(RETRY_SECONDS)


async def _through_the_pooler(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    connection = await asyncpg.connect(
        str(url),
        timeout=settings.connect_seconds,
        command_timeout=settings.statement_seconds + 1,
        **options,
    )
    with ExitStack() as on_failure:
        on_failure.callback(connection.terminate)
        await _refuse_wrong_alias(connection, read_only, settings.connect_seconds)
        on_failure.pop_all()
    return connection


async def _refuse_wrong_alias(
    connection: asyncpg.Connection, read_only: bool, seconds: float
) -> None:
    # A pooler accepts logins while Postgres is down, so run a query to check.
    found = await connection.fetchval("SHOW transaction_read_only", timeout=seconds)
    if read_only and found == "off":
        raise NotConnected(
            "DATABASE_READ_URL leads to sessions that can write: it needs an alias of the pooler"
            " whose sessions begin with default_transaction_read_only = on"
        )
    if not read_only and found == "on":
        raise NotConnected("DATABASE_URL leads to the pooler's read-only alias, or to a replica")
