# Rung's file: advancing to another stage may change it.
"""Reader: runs queries, one statement at a time or in a transaction."""

import json
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID
from weakref import ref

import asyncpg
from pydantic import TypeAdapter
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from app.infra.database_use import this_request
from app.infra.failures import (
    CONNECTION_LOST,
    POSTGRES_FAILS,
    TYPES_CHANGED,
    NotConnected,
    Unavailable,
    unavailable_after,
)
from app.infra.queries import Form, Query, nested
from app.infra.read_pool import ReadPool

__all__ = ["Query", "Reader", "in_transaction", "nested"]

NOT_A_QUERY = (
    "ReadSession takes a Query, made once at module level: PEOPLE = Query(select(…), Person), then"
    " `await read.all(PEOPLE)`. See docs/guide/queries.md."
)


class Reader:
    """Reads; Postgres itself refuses a write through it.

    Each statement runs alone, without BEGIN and ROLLBACK, and sees all that was committed before.
    No connection is held between two statements, so a request that waits for something slow in
    between blocks no other request. Raises Unavailable.
    """

    __slots__ = ("_patience", "_pool", "cache")

    def __init__(self, pool: ReadPool, patience: float, cache: Any = None) -> None:
        self._pool = pool
        self._patience = patience
        self.cache = cache  # of answers with @max_stale; there is none before stage 3

    def on_primary(self) -> "Reader":
        """Reads the primary, without the cache or a replica."""
        return Reader(self._pool, self._patience)

    def needs_a_replica(self, max_stale: timedelta) -> bool:
        """True while the primary does not answer, and a replica may."""
        return False

    def within(self, max_stale: timedelta) -> "Reader":
        """Skips the cache. A replica may answer with a lag of up to max_stale."""
        return self if self.cache is None else self.on_primary()

    async def all[RowT](self, query: Query[RowT], /, **values: Any) -> list[RowT]:
        if not isinstance(query, Query):
            raise TypeError(NOT_A_QUERY)
        form = query.form(values)
        return form.rows_of(await self._records(form, values))

    async def first[RowT](self, query: Query[RowT], /, **values: Any) -> RowT | None:
        rows = await self.all(query, **values)
        return rows[0] if rows else None

    async def count(self, query: Query[Any], /, **values: Any) -> int:
        """How many rows `all` would find without limit and offset: the total of all pages."""
        [record] = await self._records(query.count(values), values)
        total: int = record[0]
        return total

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            raise AttributeError(f"{name}: {NOT_A_QUERY}")

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        """Runs SQL that SQLAlchemy cannot express. Parameters are $1, $2 …"""
        try:
            return await self._answer(sql, arguments)
        # Not NotConnected: a transaction around this read would note that Postgres takes no writes.
        except NotConnected as error:
            raise Unavailable(str(error)) from error
        except (*POSTGRES_FAILS, *TYPES_CHANGED) as error:
            if unavailable := unavailable_after(error):
                raise unavailable from error
            raise

    async def _records(self, form: Form[Any], values: dict[str, Any]) -> Sequence[Any]:
        return await self.fetch(form.sql, *form.arguments(values))

    async def _answer(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        begun = time.monotonic()
        try:
            return await self._run(self._pool, sql, arguments)
        except (*TYPES_CHANGED, asyncpg.InternalServerError, ValueError):
            pass  # The second try learns the new types. A real error fails again.
        except (asyncpg.InterfaceError, *CONNECTION_LOST):
            # A SELECT may run twice, but not after a long wait, as in a pooler's queue.
            if time.monotonic() - begun > self._patience:
                raise
            # Usually Postgres closed all of them together, and the pool has not noticed yet.
            self._pool.expire_connections()
        return await self._run(self._pool, sql, arguments)

    async def _run(
        self, pool: ReadPool, sql: str, arguments: tuple[Any, ...]
    ) -> list[asyncpg.Record]:
        asked = time.perf_counter()
        try:
            pooled = await pool.acquire(self._patience)
        except TimeoutError as error:
            this_request.get().wait_seconds += time.perf_counter() - asked
            raise Unavailable("Postgres: every reading connection is busy") from error
        connected = time.perf_counter()
        try:
            records: list[asyncpg.Record] = await pooled.connection.fetch(sql, *arguments)
            return records
        # TimeoutError is an OSError. Treated as a lost connection, the slow query would run again.
        except (TimeoutError, asyncpg.QueryCanceledError) as error:
            if isinstance(error, TimeoutError):  # Postgres has the same limit, but said nothing
                pool.expire_with(pooled)
            raise Unavailable("Postgres: a query took too long") from error
        except AttributeError as error:
            # asyncpg has no protocol if the connection ended between two messages of a statement.
            if not pooled.connection.is_closed():
                raise
            raise ConnectionResetError("the connection was terminated") from error
        finally:
            this_request.get().note(asked, connected)
            pool.release(pooled)


class InTransaction(Reader):
    """Reads in a transaction, and sees what it has written so far. Here a Query may also write."""

    __slots__ = ("_write",)

    def __init__(self, write: AsyncSession) -> None:
        self._write = write
        self.cache = None

    def on_primary(self) -> Reader:
        return self

    async def fetch(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await self._connection()
        found: list[asyncpg.Record] = await _on_driver(connection, "fetch", sql, *arguments)
        return found

    async def executemany(self, query: Query[Any], rows: Sequence[dict[str, Any]]) -> None:
        """Runs an INSERT, UPDATE or DELETE with each of these values, in one round trip."""
        if not query.is_fixed:
            raise TypeError("executemany runs the same SQL for each row: it takes no `optional`")
        if not rows:
            return
        form = query.fixed
        connection = await self._connection()
        if form.runs_on_driver:
            arguments = [form.arguments(values) for values in rows]
            await _on_driver(connection, "executemany", form.sql, arguments)
        else:
            given = [form.named(values) for values in rows]
            if any(values.keys() != given[0].keys() for values in given):
                raise TypeError(f"each row needs the same names: {form.sql}")
            await connection.execute(form.statement, given)

    async def _records(self, form: Form[Any], values: dict[str, Any]) -> Sequence[Any]:
        if form.runs_on_driver:
            return await self.fetch(form.sql, *form.arguments(values))
        connection = await self._connection()
        return (await connection.execute(form.statement, form.named(values))).all()

    async def _connection(self) -> AsyncConnection:
        session = self._write.sync_session
        if session.new or session.dirty or session.deleted:
            await self._write.flush()
        # The session would look for it in a greenlet each time. It must do so once in a savepoint,
        # to begin it, and after a failed flush, to refuse.
        begun, known = session.info.get(InTransaction, (None, None))
        innermost = _innermost(session)
        if begun and innermost and begun() is innermost and innermost.is_active:
            return cast("AsyncConnection", known)
        connection = await self._write.connection()
        session.info[InTransaction] = ref(_innermost(session)), connection
        return connection


def _innermost(session: Session) -> SessionTransaction | None:
    return session.get_nested_transaction() or session.get_transaction()


async def _on_driver(connection: AsyncConnection, method: str, sql: str, *given: Any) -> Any:
    """Without SQLAlchemy's cursor, which takes three times the instructions of the driver."""
    adapted: Any = connection.sync_connection.connection.dbapi_connection  # type: ignore[union-attr]
    began = time.perf_counter()
    try:
        async with adapted._execute_mutex:  # SQLAlchemy's: of two statements at once, one waits
            return await getattr(adapted.driver_connection, method)(sql, *given)
    except asyncpg.PostgresError as error:
        error.detail = None  # holds values of the row, and would be logged
        raise
    finally:
        this_request.get().note(began, began)


def in_transaction(write: AsyncSession) -> InTransaction:
    """A ReadSession inside of a WriteSession: `await product_by_id(in_transaction(write), id)`."""
    return InTransaction(write)


async def prepare_reading_connection(connection: asyncpg.Connection) -> None:
    for name in ("json", "jsonb"):
        await connection.set_type_codec(
            name, encoder=json.dumps, decoder=json.loads, schema="pg_catalog"
        )
    # asyncpg's own kind of UUID takes twice as long to become JSON.
    await connection.set_type_codec(
        "uuid", encoder=_uuid_bytes, decoder=_as_uuid, schema="pg_catalog", format="binary"
    )


# In Rust: 0.2 µs, and UUID(bytes=…) takes 1 µs.
_as_uuid = TypeAdapter(UUID).validator.validate_python


def _uuid_bytes(given: UUID | str) -> bytes:
    one: UUID = _as_uuid(given)
    return one.bytes
