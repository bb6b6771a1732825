"""Alembic's entry: runs the migrations over asyncpg, where DATABASE_URL says."""

import asyncio
import sys

from alembic import context
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.accounts.models
import app.catalog.models
import app.infra.sessions
import app.orders.models
import app.uploads.models  # noqa: F401  # each registers its tables with Base
from app.infra import environment
from app.infra.database import Base, DatabaseSettings

# Waiting for a lock, a migration makes everybody else wait behind it: give up soon, try again.
TIMEOUTS = ("SET lock_timeout = '3s'", "SET statement_timeout = '60s'")

# One migration at a time, also when several copies are deployed at once.
ADVISORY_LOCK = 7_311_966


async def migrate() -> None:
    settings = environment.read(DatabaseSettings)
    url = make_url(settings.direct_url).set(drivername="postgresql+asyncpg")
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(_run)
        await connection.commit()
    await engine.dispose()


def _run(connection: Connection) -> None:
    if connection.dialect.server_version_info < (18,):  # type: ignore[operator]
        sys.exit("Postgres 18 or newer is needed: ids are made by its uuidv7().")
    for timeout in TIMEOUTS:
        connection.execute(text(timeout))
    connection.execute(text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def print_sql() -> None:
    """For `alembic upgrade --sql`: what would be run."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=Base.metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    for timeout in TIMEOUTS:
        context.execute(timeout)
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    print_sql()
else:
    asyncio.run(migrate())
