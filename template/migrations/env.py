"""Alembic's entry: runs the migrations over asyncpg, on the database of DatabaseSettings."""

import asyncio
import re
import sys
import time

import asyncpg
from alembic import context
from alembic.runtime.migration import MigrationInfo
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

import app.main  # noqa: F401  # it imports the models of every module, which register with Base
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.failures import CANNOT_CONNECT, reason_of
from app.infra.tables import Base

# All others wait behind a migration that waits for a lock. So give up soon and try again later.
TIMEOUTS = ("SET lock_timeout = '3s'", "SET statement_timeout = '60s'")

# By SQLSTATE: a refusal that is no mistake of a migration, and what to do then.
REFUSALS = {
    "55P03": "Another transaction held a lock for 3 s: {statement}\nRun this command again."
    " If it fails again, docs/guide/unavailable.md shows who holds the lock.",
    "42501": "Postgres: {reason}\nThe role of migrations must own the database and its tables:"
    " ALTER DATABASE name OWNER TO role. Some extensions only a superuser can create.",
    "25006": "Postgres: {reason}\nThe role or the database has default_transaction_read_only."
    " Use the role that owns the tables. Some providers set this when the disk is full.",
    "3F000": "Postgres: {reason}\nThe role's search_path names no schema that exists. Create the"
    " schema: CREATE SCHEMA name AUTHORIZATION role",
}

# One migration at a time, also when several copies are deployed at once.
ADVISORY_LOCK = 7_311_966
HELD_BY = f"""
    SELECT pid FROM pg_locks
    WHERE locktype = 'advisory' AND classid = 0 AND objid = {ADVISORY_LOCK} AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""  # noqa: S608  # nothing from outside

# A CREATE INDEX CONCURRENTLY that was ended leaves an index that no query uses. When the migration
# runs again, IF NOT EXISTS skips it. A build that still runs holds a lock on its table.
INVALID = """
    SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT indisvalid AND relkind = 'i' AND NOT EXISTS (
        SELECT FROM pg_stat_progress_create_index JOIN pg_locks USING (pid)
        WHERE relation = indrelid
    )
"""
# The second copy that a REINDEX CONCURRENTLY was building.
COPY = re.compile(r"_cc(new|old)\d*\"?$")

applied: list[str] = []

# The first words of an error of Alembic, and what to do then.
NEXT_STEPS = {
    "Multiple head revisions": "Two branches have each added a migration. Join them:"
    ' {alembic} merge heads -m "merge"',
    "Can't locate revision identified by '{head}'": "The database has this migration, and this code"
    " does not. In development, go to the branch that has it, and take it back there with its data:"
    " {alembic} downgrade -1\nIn production, docs/runbooks/deploy.md says how to go back to an"
    " older version (MIGRATE=true).",
}

# Postgres lists a partition beside its table.
PARTITIONS = "SELECT relname FROM pg_class WHERE relispartition"


async def migrate() -> None:
    settings = environment.read(DatabaseSettings)
    engine = create_async_engine(
        "postgresql+asyncpg://",
        # asyncpg reads the URL itself, as in the app: it knows ?sslmode= and the rest.
        async_creator=lambda: _connect(str(settings.direct_url)),
        poolclass=NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    except DBAPIError as error:
        refusal = REFUSALS.get(getattr(error.orig, "sqlstate", None) or "")
        if refusal is None:
            raise
        sys.exit(refusal.format(statement=error.statement, reason=error.orig))
    await engine.dispose()


async def _connect(url: str) -> asyncpg.Connection:
    try:
        return await asyncpg.connect(url, timeout=10, target_session_attrs="primary")
    except CANNOT_CONNECT as error:
        why = f"Cannot connect to the Postgres of DATABASE_URL (is it in .env?): {reason_of(error)}"
        sys.exit(why)


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
        raise CommandError(f"{error}\n{_next_step(str(error))}".rstrip()) from error
    if (applied or _is_upgrade()) and (invalid := connection.scalars(text(INVALID)).all()):
        repair = "\n".join(
            f"    {'DROP' if COPY.search(name) else 'REINDEX'} INDEX CONCURRENTLY {name};"
            for name in invalid
        )
        sys.exit(
            "The migrations are applied, but these indexes are invalid: a build of them was ended,"
            f" and no query uses them. Repair them, then run this command again:\n{repair}"
        )


def _is_upgrade() -> bool:
    """Also one that finds nothing to apply: a second try must not hide what the first one left."""
    given = context.config.cmd_opts  # None where code calls Alembic
    return given is not None and given.cmd[0].__name__ == "upgrade"


def _next_step(error: str) -> str:
    alembic = context.config.attributes.get("program", "sh dev/uv run alembic")
    heads = context.get_context().get_current_heads() or ("",)
    for words, step in NEXT_STEPS.items():
        if any(error.startswith(words.format(head=head)) for head in heads):
            return step.format(alembic=alembic)
    return ""


def _report(ctx: object, step: MigrationInfo, heads: object, run_args: object) -> None:
    script = context.script.get_revision(step.up_revision_ids[0])
    applied.append(script.revision)
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
    try:
        asyncio.run(migrate())
    except KeyboardInterrupt:  # Postgres undoes what is not committed
        sys.exit(130)
