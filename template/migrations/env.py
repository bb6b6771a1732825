"""Alembic's entry: runs the migrations over asyncpg, on the database of DatabaseSettings."""

import asyncio
import sys
import time

import asyncpg
from alembic import context
from alembic.runtime.migration import MigrationContext, MigrationInfo
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.main  # noqa: F401  # it imports the models of every module, which register with Base
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.tables import Base

# All others wait behind a migration that waits for a lock. So give up soon and try again later.
TIMEOUTS = ("SET lock_timeout = '3s'", "SET statement_timeout = '60s'")
LOCK_TIMEOUT = "55P03"

# One migration at a time, also when several copies are deployed at once.
ADVISORY_LOCK = 7_311_966
HELD_BY = f"""
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 0 AND objid = {ADVISORY_LOCK} AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608  # nothing from outside

# A CREATE INDEX CONCURRENTLY that was ended leaves an index that no query uses. When the migration
# runs again, IF NOT EXISTS skips it. So a migration that leaves one is not recorded as applied.
INVALID = """
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND relkind = 'i'
        AND NOT EXISTS (SELECT FROM pg_stat_progress_create_index WHERE index_relid = indexrelid)
"""

# What to do after these errors of Alembic, by their first words.
NEXT_STEPS = {
    "Multiple head revisions": "Two branches have each added a migration. Join them:"
    ' sh dev/uv run alembic merge heads -m "merge"',
    "Can't locate revision": "The database has a migration that this code lacks. In development,"
    " go to the branch that has it, and run there: sh dev/uv run alembic downgrade -1\nIn"
    " production the code is older than the database: docs/runbooks/deploy.md goes back without"
    " migrations.",
}

# Postgres lists a partition beside its table.
PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition"


async def migrate() -> None:
    settings = environment.read(DatabaseSettings)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # asyncpg reads the URL itself, as in the app: it knows ?sslmode= and the rest.
        async_creator=lambda: asyncpg.connect(
            str(settings.direct_url), timeout=10, target_session_attrs="primary"
        ),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InternalClientError) as error:
        sys.exit(f"Cannot connect to the Postgres of DATABASE_URL (is it in .env?): {error}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_TIMEOUT:
            raise
        sys.exit(
            f"Another transaction held a lock for 3 s: {error.statement}\nRun this command again."
            " If it fails again, docs/guide/unavailable.md shows who holds the lock."
        )
    await engine.dispose()


def _run(connection: Connection) -> None:
    if (connection.dialect.server_version_info or ()) < (18,):
        sys.exit("Use Postgres 18 or newer: its uuidv7() makes the ids.")
    _wait_for_the_others(connection)
    for timeout in TIMEOUTS:
        connection.execute(text(timeout))
    partitions = set(connection.scalars(text(PARTITIONS)))
    connection.commit()
    # `make module-drop` compares without the models of the tables that it drops.
    tables = (*Base.metadata.tables.values(), *context.config.attributes.get("dropped", ()))
    schemas = {None, *(table.schema for table in tables)}

    def is_of_a_model(name: str | None, kind: str, _: object) -> bool:
        """Otherwise `make migration` drops each partition, and the tables of other schemas."""
        return name in schemas if kind == "schema" else kind != "table" or name not in partitions

    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        transaction_per_migration=True,
        compare_server_default=True,
        include_schemas=True,
        include_name=is_of_a_model,
        on_version_apply=_report,
    )
    try:
        with context.begin_transaction():
            context.run_migrations()
    except CommandError as error:
        steps = [step for words, step in NEXT_STEPS.items() if str(error).startswith(words)]
        raise CommandError("\n".join([str(error), *steps])) from error


def _report(ctx: MigrationContext, step: MigrationInfo, heads: object, run_args: object) -> None:
    """Runs in the transaction that records the migration: an exit takes that back."""
    script = context.script.get_revision(step.up_revision_ids[0])
    assert ctx.connection  # noqa: S101  # it is not offline
    if invalid := ctx.connection.scalars(text(INVALID)).all():
        repair = "\n".join(f"    REINDEX INDEX CONCURRENTLY {name};" for name in invalid)
        sys.exit(
            f"The migration {script.revision} is not recorded as applied, because no query uses"
            " these indexes: a build of them was ended. Build them again, or drop those that nobody"
            f" needs. Then run this command again:\n{repair}"
        )
    print("Applied" if step.is_upgrade else "Reverted", f"{script.revision}: {script.doc}")


def _wait_for_the_others(connection: Connection) -> None:
    # Polling, because CREATE INDEX CONCURRENTLY waits for every open transaction, also for one that
    # only waits for this lock.
    told = None
    while not connection.scalar(text(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})")):
        if (other := connection.scalar(text(HELD_BY))) not in (None, told):
            end = f"If nobody waits for it any more, end it: SELECT pg_terminate_backend({other})"
            print(f"Another migration runs. {end}", file=sys.stderr, flush=True)
            told = other
        connection.rollback()
        time.sleep(0.2)


def print_sql() -> None:
    """For `alembic upgrade --sql`: the statements that it would run."""
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
