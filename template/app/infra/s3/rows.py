# Rung's file: advancing to another stage may change it.
"""The keys and hashes of files that the rows of the business name."""

import argparse
import sys
from collections.abc import AsyncIterator, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass

import asyncpg

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.failures import Unavailable

# Each page is a connection of its own, and a query that may have to sort all rows.
A_PAGE = "ORDER BY key LIMIT 10000"


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
        page = await self._fetch(f"true {A_PAGE}")
        while page:
            yield page
            page = await self._fetch(f"key > $1 {A_PAGE}", page[-1].key)

    async def among(self, keys: Iterable[str]) -> list[Row]:
        """Of these keys, those that there are."""
        asked = list(keys)
        return await self._fetch("key = ANY($1)", asked) if asked else []

    async def want(self, key: str) -> bool:
        """Whether a file has to be there."""
        return any(row.sha256 for row in await self.among([key]))

    async def are_there(self) -> bool:
        return bool(await self._fetch("true LIMIT 1"))

    async def _fetch(self, condition: str, *given: object) -> list[Row]:
        # Anew for each page, because not every proxy keeps an idle connection for minutes.
        connection = await connect(self._settings, self._settings.direct_url, read_only=True)
        try:
            found: list[asyncpg.Record] = await connection.fetch(
                f"SELECT key, sha256 FROM ({self._query}) AS files"  # noqa: S608  # the operator's
                f" WHERE {condition}",
                *given,
            )
        finally:
            await connection.close()
        return [Row(key, sha256) for key, sha256 in found]


def command_with_rows(module: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"python -m {module}")
    parser.add_argument(
        "--rows",
        required=True,
        metavar="QUERY",
        help="SELECTs key and sha256 of every file, NULL as sha256 of one that may be missing",
    )
    return parser


@contextmanager
def ends_in_words() -> Generator[None]:
    """A command needs no traceback to say that a server is away."""
    try:
        yield
    except Unavailable as error:
        sys.exit(f"{error}\nNothing is lost. When it answers again, run this again.")
    # A lost connection is one of the last two, and no answer in time an OSError.
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        sys.exit(f"Postgres did not answer the query of --rows: {str(error) or repr(error)}")
    except KeyboardInterrupt:
        sys.exit(130)
