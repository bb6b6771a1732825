# Rung's file: advancing to another stage may change it.
"""Queries that are declared once, and the reader that runs them."""

import json
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.infra.failures import CONNECTION_LOST, Unavailable

_DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own


class Query[RowT]:
    """One SELECT with named parameters, and the model that each of its rows becomes.

    Make it once, at module level: it is compiled at its first use, and from then on runs on the
    driver itself, which serves about twice the requests of SQLAlchemy's connection. Every column
    is a field of the model.

        PRODUCT_BY_ID = Query(
            select(Product.id, Product.name).where(Product.id == bindparam("product_id")),
            ProductOut,
        )
    """

    def __init__(self, statement: Select[*tuple[Any, ...]], row: type[RowT]) -> None:
        self.statement = statement
        self.row = row

    @cached_property
    def compiled(self) -> "CompiledQuery":
        compiled = self.statement.compile(dialect=_DIALECT)
        if compiled.post_compile_params:
            raise TypeError("IN over a list has no fixed SQL: write column == any_(bindparam(…))")
        names = [column.name for column in self.statement.selected_columns]
        if len(set(names)) < len(names):
            raise TypeError("two columns have one name: give one of them another with .label()")
        order = tuple(compiled.positiontup or ())
        required = frozenset(name for name in order if compiled.binds[name].required)
        constants = {name: compiled.params[name] for name in order if name not in required}
        return CompiledQuery(str(compiled), order, required, constants)


class CompiledQuery(NamedTuple):
    sql: str
    order: tuple[str, ...]
    required: frozenset[str]
    constants: Mapping[str, Any]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Values go to the driver as they are: UUID, datetime, Decimal, list, dict."""
        if values.keys() != self.required:
            raise TypeError(f"takes {sorted(self.required)}, got {sorted(values)}: {self.sql}")
        if self.constants:
            values = {**self.constants, **values}
        return [values[name] for name in self.order]


class Reader:
    """Reads; Postgres itself refuses a write through it.

    Each statement runs alone, without BEGIN and ROLLBACK, and sees all that was committed before.
    No connection is held between two statements, so a request that waits for something slow in
    between takes none from the others. Raises Unavailable.
    """

    __slots__ = ("_patience", "_pool", "cache")

    def __init__(self, pool: asyncpg.Pool, patience: float, cache: Any = None) -> None:
        self._pool = pool
        self._patience = patience
        self.cache = cache  # of answers with @max_stale; there is none before stage 3

    def on_primary(self) -> "Reader":
        """Past the cache and past the replicas."""
        return Reader(self._pool, self._patience)

    def within(self, max_stale: timedelta) -> "Reader":
        """Past the cache; a replica that answers may be behind by max_stale."""
        return self.on_primary()

    async def all[RowT](self, query: Query[RowT], **values: Any) -> list[RowT]:
        compiled = query.compiled
        records = await self.fetch(compiled.sql, *compiled.arguments(values))
        return [query.row(**dict(record)) for record in records]

    async def first[RowT](self, query: Query[RowT], **values: Any) -> RowT | None:
        rows = await self.all(query, **values)
        return rows[0] if rows else None

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """For what SQLAlchemy cannot say: parameters are $1, $2 …"""
        try:
            return await self._answer(sql, arguments)
        except CONNECTION_LOST as error:
            raise Unavailable(f"Postgres: the connection was lost: {error}") from error

    async def _answer(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        begun = time.monotonic()
        try:
            return await self._run(self._pool, sql, arguments)
        except (asyncpg.InterfaceError, *CONNECTION_LOST):
            # A SELECT may run twice, but not after a long wait, say in a pooler's queue.
            if time.monotonic() - begun > self._patience:
                raise
        # Mostly all connections were closed together, and some do not know it yet.
        await self._pool.expire_connections()
        return await self._run(self._pool, sql, arguments)

    async def _run(
        self, pool: asyncpg.Pool, sql: str, arguments: tuple[Any, ...]
    ) -> list[asyncpg.Record]:
        try:
            connection = await pool.acquire(timeout=self._patience)
        except TimeoutError as error:
            raise Unavailable("Postgres: every reading connection is busy") from error
        try:
            records: list[asyncpg.Record] = await connection.fetch(sql, *arguments)
            return records
        # TimeoutError is an OSError: as a lost connection the slow query would run a second time.
        except (TimeoutError, asyncpg.QueryCanceledError) as error:
            raise Unavailable("Postgres: a query took too long") from error
        finally:
            await pool.release(connection)


async def prepare_reading_connection(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )


async def leave_as_it_is(connection: asyncpg.Connection) -> None:
    """Replaces asyncpg's reset, a second round trip: a statement in autocommit leaves nothing."""
