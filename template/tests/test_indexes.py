"""Every query that a request makes finds its rows through an index, on tables of 20,000 rows."""

import importlib
import pkgutil
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import asyncpg
import pytest

import app
from app.infra.database import Base
from app.infra.reads import Query
from dev.pytest_plugin import Services

ROWS = "FROM generate_series(1, 20000) n"
FILL = {
    "accounts": f"(email, password_hash) SELECT n, n {ROWS}",
    "login_attempts": f"(origin) SELECT n {ROWS}",
    "login_sessions": f"SELECT sha256(n::text::bytea), uuidv4(), now(), now() + '1 day' {ROWS}",
    "products": f"(name, description, price_cents, stock) SELECT n, n, n, n {ROWS}",
    "orders": f"(account_id, idempotency_key) SELECT uuidv4(), n {ROWS}",
    "order_items": "SELECT id, uuidv4(), 1, 1 FROM orders",
    "uploads": f"""(account_id, key, content_type, size, completed_at)
        SELECT uuidv4(), n, 'image/png', n, now() {ROWS}""",
}

FOREIGN_KEYS_WITHOUT_INDEX = """
    SELECT conrelid::regclass || ' ' || conname FROM pg_constraint
    WHERE contype = 'f' AND NOT EXISTS (
        SELECT FROM pg_index
        WHERE indrelid = conrelid AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
    )
"""


def queries() -> Iterator[Any]:
    for module in pkgutil.walk_packages(app.__path__, "app."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if isinstance(value, Query):
                yield pytest.param(value, id=f"{module.name}.{name}")


@pytest.fixture
async def connection(services: Services) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.database_url)
    yield connection
    await connection.close()


@pytest.mark.parametrize("query", list(queries()))
async def test_a_query_finds_its_rows_through_an_index(
    connection: asyncpg.Connection, query: Query[Any]
) -> None:
    for table in Base.metadata.sorted_tables:
        await connection.execute(f"INSERT INTO {table.name} {FILL[table.name]}")
    await connection.execute("ANALYZE")

    plan = await plan_for_any_values(connection, query)

    assert "Seq Scan" not in plan, plan
    assert "Index Cond" in plan, plan


async def test_every_foreign_key_has_an_index(connection: asyncpg.Connection) -> None:
    assert await connection.fetch(FOREIGN_KEYS_WITHOUT_INDEX) == []


async def plan_for_any_values(connection: asyncpg.Connection, query: Query[Any]) -> str:
    values = ", ".join(["NULL"] * len(query.compiled.order))
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    await connection.execute(f"PREPARE query AS {query.compiled.sql}")
    lines = await connection.fetch(f"EXPLAIN EXECUTE query ({values})")
    return "\n".join(line[0] for line in lines)
