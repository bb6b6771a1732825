"""Each Query finds its rows through an index, on tables of 20,000 rows."""

import importlib
import pkgutil
import re
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Table
from sqlalchemy.dialects.postgresql import dialect

import app
from app.infra.reads import Query
from app.infra.tables import Base
from dev.pytest_plugin import Services

ROWS = 20_000

_DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own

# Values by SQL type, for the n-th row.
VALUES = {
    "BIGINT": "n",
    "BOOLEAN": "true",
    "BYTEA": "sha256(n::text::bytea)",
    "DATE": "current_date",
    "JSONB": "'{}'",
    "NUMERIC": "n",
    "TEXT": "n::text",
    "TIMESTAMP WITH TIME ZONE": "now() + n * interval '1 second'",
    "UUID": "uuidv4()",
}

# Tables are filled from their columns. Write a SELECT here for a table that needs other values.
FILL = {
    "uploads": f"""(account_id, key, content_type, size, completed_at)
        SELECT uuidv4(), n, 'image/png', n, now() FROM generate_series(1, {ROWS}) n""",  # noqa: S608
}

FOREIGN_KEYS_WITHOUT_INDEX = """
    SELECT conrelid::regclass || ' ' || conname FROM pg_constraint
    WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = conrelid AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
    )
"""


def queries() -> dict[str, Query[Any]]:
    return {
        f"{module.name}.{name}": value
        for module in pkgutil.walk_packages(app.__path__, "app.")
        for name, value in vars(importlib.import_module(module.name)).items()
        if isinstance(value, Query)
    }


@pytest.fixture
async def connection(services: Services) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.database_url)
    yield connection
    await connection.close()


async def test_every_query_finds_its_rows_through_an_index(
    connection: asyncpg.Connection,
) -> None:
    for table in Base.metadata.sorted_tables:
        await connection.execute(f"INSERT INTO {table.name} {FILL.get(table.name) or rows(table)}")
    await connection.execute("ANALYZE")
    await connection.execute("SET plan_cache_mode = force_generic_plan")

    plans = {name: await plan(connection, query) for name, query in queries().items()}

    scans = [f"{name}:\n{plan}" for name, plan in plans.items() if reads_too_much(plan)]
    assert not scans, "\n\n".join(scans)


async def test_every_foreign_key_has_an_index(connection: asyncpg.Connection) -> None:
    assert await connection.fetch(FOREIGN_KEYS_WITHOUT_INDEX) == []


def rows(table: Table) -> str:
    """A SELECT that fills the table. A foreign key takes the rows of its table in turn."""
    values, sources = {}, [f"generate_series(1, {ROWS}) n"]
    for column in table.columns:
        if column.foreign_keys:
            target = next(iter(column.foreign_keys)).column
            numbered = f"SELECT {target.name} AS id, row_number() OVER () AS i FROM {target.table}"  # noqa: S608
            place = len(sources) - 1  # with two foreign keys, pairs that differ
            sources.append(
                f"({numbered}) {column.name}_ ON {column.name}_.i = (n + {place}) % {ROWS}"
            )
            values[column.name] = f"{column.name}_.id"
        elif column.server_default is None and not column.nullable:
            kind = column.type.compile(_DIALECT)
            if kind not in VALUES:
                pytest.fail(f"Write VALUES[{kind!r}], or FILL[{table.name!r}], in this file.")
            values[column.name] = VALUES[kind]
    chosen = ", ".join(values.values())
    return f"({', '.join(values)}) SELECT {chosen} FROM {' JOIN '.join(sources)}"  # noqa: S608


def reads_too_much(plan: str) -> bool:
    if "Seq Scan" in plan or "Index Cond" not in plan:
        return True
    # Filtering the one row of a key is fine. Filtering a range reads rows only to drop them.
    return "Filter:" in plan and re.search("Index Cond: .*[<>]", plan) is not None


async def plan(connection: asyncpg.Connection, query: Query[Any]) -> str:
    """As Postgres plans it for values that it does not know."""
    values = ", ".join(["NULL"] * len(query.compiled.order))
    await connection.execute(f"PREPARE query AS {query.compiled.sql}")
    lines = await connection.fetch(f"EXPLAIN EXECUTE query ({values})")
    await connection.execute("DEALLOCATE query")
    return "\n".join(line[0] for line in lines)
