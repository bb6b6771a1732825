# Rung's file: advancing to another stage may change it.
"""Counts the statements that a test sends to Postgres, to find N+1 queries."""

import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Engine, event

# The begin and end of transactions, and the drivers' statements on a new connection.
AROUND = re.compile(
    r"\s*(BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE|SET|SHOW|RESET)\b|.*\b(pg_catalog\.|set_config\()",
    re.IGNORECASE | re.DOTALL,
)


class Statements:
    """The statements of all connections that are opened while this is active."""

    def __init__(self) -> None:
        self._counting: list[list[str]] = []

    @contextmanager
    def counted(self) -> Iterator[list[str]]:
        """Collects the SQL of each statement that is sent inside the `with` block."""
        counting: list[str] = []
        self._counting.append(counting)
        try:
            yield counting
        finally:
            self._counting.remove(counting)

    @contextmanager
    def watching(self) -> Iterator[None]:
        connect = asyncpg.connect

        @functools.wraps(connect)
        async def connect_and_watch(*args: Any, **options: Any) -> asyncpg.Connection:
            connection = await connect(*args, **options)
            connection.add_query_logger(lambda sent: self._note(sent.query))
            return connection

        # The driver's log leaves out the statements that SQLAlchemy prepares.
        def prepared(_: Any, __: Any, sql: str, ___: Any, ____: Any, many: bool) -> None:
            if not many:
                self._note(sql)

        event.listen(Engine, "before_cursor_execute", prepared)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(asyncpg, "connect", connect_and_watch)
                yield
        finally:
            event.remove(Engine, "before_cursor_execute", prepared)

    def _note(self, sql: str) -> None:
        if not AROUND.match(sql):
            for counting in self._counting:
                counting.append(sql)
