# Rung's file: advancing to another stage may change it.
"""Compares constraints and indexes of the models with those that the migrations made.

Alembic compares no primary key, CHECK or EXCLUDE of an existing table, and of an index neither its
WHERE nor its type nor its operator classes.
"""

from functools import partial

import asyncpg
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.schema import CheckFirst

# As Postgres writes them. Without their names: a primary key keeps its name when a table gets
# another one.
DEFINITIONS = """
    WITH tables AS (
        SELECT oid, relname AS name FROM pg_class WHERE relkind IN ('r', 'p')
            AND relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = current_schema())
    )
    SELECT name, '', '' FROM tables
    UNION ALL
    SELECT name, conname, regexp_replace(pg_get_constraintdef(c.oid, true), ' NOT VALID$', '')
    FROM tables JOIN pg_constraint c ON conrelid = tables.oid AND contype IN ('c', 'p', 'x')
    UNION ALL
    SELECT name, relname,
        replace(pg_get_indexdef(indexrelid, 0, true), format(' %I ON ', relname), ' ON ')
    FROM tables JOIN pg_index ON indrelid = tables.oid JOIN pg_class i ON i.oid = indexrelid
    WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid AND contype <> 'f')
    ORDER BY 1, 2
"""


async def found(url: str, metadata: MetaData) -> list[str]:
    """Creates the tables of the models again, in an empty schema, and reads both from Postgres."""
    migrated = await asyncpg.connect(url)
    made = [tuple(row) for row in await migrated.fetch(DEFINITIONS)]
    path = f"of_models, {await migrated.fetchval('SHOW search_path')}"
    await migrated.execute("CREATE SCHEMA of_models")
    await migrated.close()

    there = {table for table, _, _ in made}  # Alembic names a table that is missing
    tables = [one for one in metadata.sorted_tables if one.schema is None and one.name in there]
    creator = partial(asyncpg.connect, url, server_settings={"search_path": path})
    engine = create_async_engine("postgresql+asyncpg://", async_creator=creator)
    async with engine.connect() as connection:
        await connection.run_sync(metadata.create_all, tables, CheckFirst.TYPES)
        said = [tuple(row) for row in await connection.exec_driver_sql(DEFINITIONS)]
    await engine.dispose()

    same = {(table, definition) for table, _, definition in made}
    named = {(table, name): definition for table, name, definition in made}
    return [
        f"Write a migration of {table} by hand, because Alembic sees no difference in {name}:"
        f"\n    models:     {definition}\n    migrations: {named.get((table, name), 'none')}"
        for table, name, definition in said
        if (table, definition) not in same
    ]
