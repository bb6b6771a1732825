"""Each Query finds its rows through an index, on tables of 20,000 rows."""

from collections.abc import AsyncGenerator

import asyncpg
import pytest

import app
from app.infra.tables import Base
from dev.pytest_plugin import Services
from dev.query_plans import FOREIGN_KEYS_WITHOUT_INDEX, ROWS, FilledTables, declared_queries

# Queries that may read many rows: the beginning of each query's name, and the reason.
EXCEPTIONS: dict[str, str] = {}

# Tables are filled from their columns. Write a SELECT here for a table that needs other values.
FILL = {
    "uploads": f"""(account_id, key, content_type, size, completed_at)
        SELECT uuidv4(), n, 'image/png', n, now() FROM generate_series(1, {ROWS}) n""",  # noqa: S608
}

# Values by SQL type, for row n, where the defaults do not fit.
VALUES: dict[str, str] = {}


@pytest.fixture
async def connection(services: Services) -> AsyncGenerator[asyncpg.Connection]:
    connection = await asyncpg.connect(services.database_url)
    yield connection
    await connection.close()


async def test_every_query_finds_its_rows_through_an_index(
    connection: asyncpg.Connection,
) -> None:
    tables = FilledTables(connection, Base.metadata, FILL, VALUES)
    await tables.insert()
    found = {place: await tables.findings(query) for place, query in declared_queries(app).items()}

    findings = [
        f"{place}, {finding}"
        for place, of_query in found.items()
        for finding in of_query
        if not place.startswith(tuple(EXCEPTIONS))
    ]
    assert not findings, "\n\n".join(findings)


async def test_every_foreign_key_has_an_index(connection: asyncpg.Connection) -> None:
    assert await connection.fetch(FOREIGN_KEYS_WITHOUT_INDEX) == []
