"""Every query that a request makes finds its rows through an index, on tables of 20,000 rows."""

import importlib
import pkgutil
import re
from collections.abc import AsyncGenerator
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
        await connection.execute(f"INSERT INTO {table.name} {FILL[table.name]}")
    await connection.execute("ANALYZE")
    await connection.execute("SET plan_cache_mode = force_generic_plan")

    plans = {name: await plan(connection, query) for name, query in queries().items()}

    scans = [f"{name}:\n{plan}" for name, plan in plans.items() if reads_too_much(plan)]
    assert not scans, "\n\n".join(scans)


async def test_every_foreign_key_has_an_index(connection: asyncpg.Connection) -> None:
    assert await connection.fetch(FOREIGN_KEYS_WITHOUT_INDEX) == []


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
