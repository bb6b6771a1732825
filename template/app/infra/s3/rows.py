# Rung's file: advancing to another stage may change it.
"""The team's rows about its files, read with the team's own query."""

import argparse
import os
import sys
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import asyncpg

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.failures import reason_of

NO_QUERY = """FILES_ROWS is not set: the query for the key and sha256 of every file of your tables.
Write NULL as the sha256 of a file that may be missing. For example, in .env or for the process:
  FILES_ROWS=SELECT key, CASE WHEN deleted_at IS NULL THEN sha256 END AS sha256 FROM your_table"""

# Each page opens a connection, and its query may have to sort all rows.
A_PAGE = "ORDER BY key LIMIT 10000"


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    sha256: str | None  # hexadecimal; None when no file has to be there


class Rows:
    """The query's columns are key and sha256."""

    def __init__(self, query: str) -> None:
        self._query = query
        self._settings = environment.read(DatabaseSettings)

    async def pages(self) -> AsyncIterator[list[Row]]:
        """Ordered by key. No transaction stays open while the caller reads files."""
        page = await self._fetch(f"true {A_PAGE}")
        while page:
            yield page
            page = await self._fetch(f"key > $1 {A_PAGE}", page[-1].key)

    async def among(self, keys: Iterable[str]) -> list[Row]:
        asked = list(keys)
        return await self._fetch("key = ANY($1)", asked) if asked else []

    async def want(self, key: str) -> bool:
        """True if a row says that the file must exist."""
        return any(row.sha256 for row in await self.among([key]))

    async def are_there(self) -> bool:
        return bool(await self._fetch("true LIMIT 1"))

    async def _fetch(self, condition: str, *given: object) -> list[Row]:
        # One for each page, because some proxies close a connection that idles for minutes.
        connection = await connect(self._settings, self._settings.direct_url, read_only=True)
        try:
            found: list[asyncpg.Record] = await connection.fetch(
                f"SELECT key, sha256 FROM ({self._query}) AS files"  # noqa: S608  # the operator's
                f" WHERE {condition}",
                *given,
            )
        except asyncpg.PostgresError as error:
            sys.exit(f"Postgres did not answer the query of FILES_ROWS: {reason_of(error)}")
        finally:
            await connection.close()
        return [Row(key, sha256) for key, sha256 in found]


def command_with_rows(module: str, description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m {module}", description=description)
    parser.add_argument("--rows", type=Rows, metavar="QUERY", help="the rows; default: FILES_ROWS")
    return parser


def rows_of(arguments: argparse.Namespace) -> Rows:
    query = os.environ.get("FILES_ROWS")
    rows: Rows | None = arguments.rows or (Rows(query) if query else None)
    if rows is None:
        sys.exit(NO_QUERY)
    return rows
