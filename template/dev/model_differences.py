# Rung's file: advancing to another stage may change it.
"""Compares constraints and indexes of the models with those that the migrations made.

Alembic compares no primary key, CHECK or EXCLUDE of an existing table, and of an index neither its
WHERE nor its type nor its operator classes.
"""

import re
from functools import partial

import asyncpg
from sqlalchemy import Connection, MetaData, Table
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CreateTable

# As Postgres writes them. Without their names: a primary key keeps its name when a table gets
# another one. Without partitioned tables: their primary key needs columns that a model may omit.
DEFINITIONS = """
    WITH tables AS (
        SELECT oid, relname AS name FROM pg_class WHERE relkind = 'r'
            AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    )
    SELECT name, '', '' FROM tables
    UNION ALL
    SELECT name, conname, pg_get_constraintdef(c.oid, true)
    FROM tables JOIN pg_constraint c ON conrelid = tables.oid AND contype IN ('c', 'p', 'x')
    UNION ALL
    SELECT name, relname,
        replace(pg_get_indexdef(indexrelid, 0, true), format(' %I ON ', relname), ' ON ')
    FROM tables JOIN pg_index ON indrelid = tables.oid JOIN pg_class i ON i.oid = indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    ORDER BY 1, 2
"""

# Not compared: spaces, and casts, because a column that has changed its type has other casts. Also
# words that SQLAlchemy cannot write, or that change no answer.
LEFT_OUT = re.compile(
    r"::[a-z0-9_ ]+(\([\d,]+\))?(\[\])?| WITH \([^)]*\)| WITHOUT OVERLAPS| NO INHERIT"
    r"| NOT (VALID|ENFORCED)| "
)


async def found(url: str, metadata: MetaData) -> list[str]:
    """Creates the tables of the models again, in an empty schema, and reads both from Postgres."""
    migrated = await asyncpg.connect(url)
    made = [tuple(row) for row in await migrated.fetch(DEFINITIONS)]
    path = f"of_models, {await migrated.fetchval('SHOW search_path')}"
    await migrated.execute("CREATE SCHEMA of_models")
    await migrated.close()

    there = {table for table, _, _ in made}  # Alembic names a table that is missing
    tables = [one for one in metadata.tables.values() if one.schema is None and one.name in there]
    creator = partial(asyncpg.connect, url, server_settings={"search_path": path})
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=creator,
        isolation_level="AUTOCOMMIT",  # a model may have postgresql_concurrently
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_create, tables)
            said = [tuple(row) for row in await connection.exec_driver_sql(DEFINITIONS)]
    finally:
        await engine.dispose()

    same = {(table, _compared(definition)) for table, _, definition in made}
    named = {(table, name): definition for table, name, definition in made}
    return [
        f"Correct the model of {table}, or write a migration by hand, because Alembic sees no"
        f" difference in {name}:"
        f"\n    models:     {definition}\n    migrations: {named.get((table, name), 'none')}"
        for table, name, definition in said
        if (table, _compared(definition)) not in same
    ]


def _create(connection: Connection, tables: list[Table]) -> None:
    # Not by create_all: sequences and types are there, and Alembic compares foreign keys.
    for table in tables:
        connection.execute(CreateTable(table, include_foreign_key_constraints=[]))
        for index in table.indexes:
            index.create(connection)


def _compared(definition: str) -> str:
    return LEFT_OUT.sub("", definition)
