# Rung's file: advancing to another stage may change it.
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

import asyncpg

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect

PAGE = 1000


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    sha256: str | None  # hexadecimal; None when no file has to be there


class Rows:
    """What the business has written down about its files.

    Infrastructure knows no table: it is given a query, whose columns are key and sha256.
    """

    def __init__(self, query: str) -> None:
        self._query = query
        self._settings = environment.read(DatabaseSettings)

    async def pages(self) -> AsyncIterator[list[Row]]:
        """In the order of their keys. No transaction stays open while files are read."""
        page = await self._fetch("true")
        while page:
            yield page
            page = await self._fetch("key > $1", page[-1].key)

    async def among(self, keys: Iterable[str]) -> list[Row]:
        """Of at most PAGE keys, those that there are."""
        return await self._fetch("key = ANY($1)", list(keys))

    async def _fetch(self, condition: str, *given: object) -> list[Row]:
        # Anew for each page, because not every proxy keeps an idle connection for minutes.
        connection = await connect(self._settings, self._settings.direct_url, read_only=True)
        try:
            found: list[asyncpg.Record] = await connection.fetch(
                f"SELECT key, sha256 FROM ({self._query}) AS files"  # noqa: S608  # the operator's
                f" WHERE {condition} ORDER BY key LIMIT {PAGE}",
                *given,
            )
        finally:
            await connection.close()
        return [Row(key, sha256) for key, sha256 in found]
