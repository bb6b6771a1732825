# Rung's file: advancing to another stage may change it.
"""The engine for transactions, with as few round trips as possible."""

from typing import Any, cast

from sqlalchemy import event
from sqlalchemy.dialects.postgresql.asyncpg import (
    AsyncAdapt_asyncpg_connection,
    AsyncAdapt_asyncpg_dbapi,
)
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from app.infra.direct_postgres import Connect
from app.infra.pooling.settings import PooledSettings
from app.infra.reads import CONNECTION_LOST, NotConnected


def transaction_engine_with(settings: PooledSettings, connect: Connect) -> AsyncEngine:
    engine = create_async_engine(
        "postgresql+asyncpg://",
        connect_args={
            "async_creator_fn": connect,
            "prepared_statement_cache_size": settings.statement_cache,
        },
        pool_size=settings.write_pool,
        max_overflow=0,
        pool_timeout=settings.pool_wait_seconds,
        hide_parameters=True,  # in errors, and so in the log
    )
    event.listen(engine.sync_engine, "checkout", _begin)
    return engine


def _begin(connection: AsyncAdapt_asyncpg_connection, entry: ConnectionPoolEntry, _: Any) -> None:
    """In place of pool_pre_ping, which takes three round trips before the first statement. The
    BEGIN has to be sent anyway, and it fails when the connection is lost: SQLAlchemy then replaces
    the connection."""
    memory = cast("dict[str, bool]", entry.record_info)  # stays when the connection is replaced
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
