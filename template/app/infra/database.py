# Rung's file: advancing to another stage may change it.
"""The database of this process: its pools, ReadSession and WriteSession."""

import asyncio
import traceback
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any, NamedTuple, Self, cast

import asyncpg
import sqlalchemy.exc
import structlog
from fastapi import Depends, FastAPI
from sqlalchemy import ExceptionContext, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection

from app.infra import environment, health
from app.infra.connections import (
    DatabaseSettings,
    FairPool,
    close_in_time,
    connect,
    reading_pool,
    transaction_engine,
)
from app.infra.database_use import commit_timed
from app.infra.failures import TYPES_CHANGED, NotConnected, Unavailable, unavailable_after
from app.infra.read_pool import ReadPool
from app.infra.reads import Reader
from app.infra.tables import Base as Base

log = structlog.get_logger()

# Old connections may lead to a server that was the primary before a failover.
READ_ONLY = "25006"

# A TimeoutError of these modules means that Postgres did not answer. Other code may raise one too.
DRIVERS = ("asyncpg.", "sqlalchemy.dialects.postgresql.asyncpg")

# The driver's words for a type that it cannot COPY, and for a wrong number of arguments.
OF_A_MISTAKE = ("binary format encoder", "for this query")

# Opening a connection usually takes some milliseconds. health.CHECK_SECONDS limits the check.
SLOW_TO_OPEN_SECONDS = 0.5


class Pool(NamedTuple):
    """The connections of a pool, and how many requests wait for one."""

    used: int
    idle: int
    most: int
    waiting: int


type Pools = Callable[[], dict[str, Pool]]


class Database:
    """Two pools on one Postgres: one that can only read, one for transactions.

    Postgres refuses a write through the first. A request that reads while its transaction is open
    never waits for a connection that it holds itself.
    """

    name = "database"  # as /ready and the log call it
    session_class = Session
    cache: Any = None  # of answers with @max_stale; there is none before stage 3

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._takes_writes = True
        self._reads: ReadPool
        self._reader: Reader
        self._writes = transaction_engine(settings)
        self.writing_engine = self._writes.sync_engine
        event.listen(self.writing_engine, "handle_error", _on_error)

    @property
    def reading_pools(self) -> dict[str, ReadPool]:
        """By name; empty before the start."""
        return {"reads": self._reads} if hasattr(self, "_reads") else {}

    def pools(self) -> dict[str, Pool]:
        found = {
            name: Pool(pool.used, pool.idle, pool.most, pool.waiting)
            for name, pool in self.reading_pools.items()
        }
        writes: Any = self._writes.pool
        waiting = writes._pool._queue.waiting  # SQLAlchemy does not report it
        return found | {
            "writes": Pool(writes.checkedout(), writes.checkedin(), writes.size(), waiting)
        }

    def reader(self) -> Reader:
        """One reader for all requests: it keeps no data of a request."""
        return self._reader

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """Commits at the end, rolls back when an exception leaves it. Raises Unavailable."""
        try:
            session = self._session()
            try:
                yield session
                with commit_timed():
                    await session.commit()
            except BaseException:
                async with session:
                    raise
            await _closed(session)
            self._note_writes(None)
        except Exception as error:
            if unavailable := self._unavailable_after(error):
                raise unavailable from error
            raise

    async def check(self) -> None:
        """Checks on new connections, because a busy pool does not mean that Postgres is down.

        A busy machine may take seconds to open them, and Postgres may have no room for more. Then
        an answer on an open one is enough.
        """
        answered = self._reads.answered_statements
        try:
            async with asyncio.timeout(SLOW_TO_OPEN_SECONDS):
                await self._open_connections()
        except (TimeoutError, NotConnected) as error:
            has_no_room = isinstance(error.__cause__, asyncpg.TooManyConnectionsError)
            if isinstance(error, NotConnected) and not has_no_room:
                raise
            if self._reads.answered_statements == answered:
                await self._reader.on_primary().fetch("SELECT 1")
            if not self._takes_writes:
                raise Unavailable("Postgres takes no writes") from None
        # No reader connects through a pooler that drops a session's settings.
        if not self._reads.used + self._reads.idle:
            await Reader(self._reads, self._settings.pool_wait_seconds).fetch("SELECT 1")

    async def _open_connections(self) -> None:
        # Usually both URLs are the same. Then check as a writer: a replica would accept a reader.
        ways = {self._settings.read_url: True, self._settings.url: False}
        for url, read_only in ways.items():
            connection = await connect(self._settings, url, read_only=read_only)
            await connection.close()

    def _unavailable_after(self, error: Exception) -> Unavailable | None:
        """None if the transaction would fail again. Raises OutOfRange."""
        if isinstance(error, NotConnected):
            self._note_writes(error)
            # Not NotConnected: a transaction of another database, around this one, would note that
            # its own Postgres takes no writes.
            return Unavailable(str(error))
        if isinstance(error, sqlalchemy.exc.TimeoutError):
            return Unavailable("Postgres: every writing connection is busy")
        if isinstance(error, TimeoutError):
            if not _is_from_the_driver(error):
                return None  # The request's own, such as of a call to another service.
            self._expire_connections()
        # InterfaceError: Postgres closed a new connection before SQLAlchemy had set it up.
        if isinstance(error, (asyncpg.InternalClientError, asyncpg.InterfaceError, TimeoutError)):
            is_mistake = any(words in str(error) for words in OF_A_MISTAKE)
            lost = Unavailable("Postgres: the connection was lost, or did not answer")
            return None if is_mistake else lost
        if isinstance(error, asyncpg.PostgresError):
            return self._after_driver_error(error)
        if isinstance(error, sqlalchemy.exc.DBAPIError):
            return self._after_statement_error(error)
        return unavailable_after(error) if isinstance(error, TYPES_CHANGED) else None

    def _after_driver_error(self, error: asyncpg.PostgresError) -> Unavailable | None:
        """For a statement that SQLAlchemy did not send: a Query, COPY."""
        _drop_values(error)
        if isinstance(error, TYPES_CHANGED):
            self._expire_connections()  # the driver learns the new types with a new connection
        if error.sqlstate == READ_ONLY:
            self._note_writes(error)
            self._expire_connections()
            return Unavailable(f"Postgres: {error}")
        return unavailable_after(error)

    def _after_statement_error(self, error: sqlalchemy.exc.DBAPIError) -> Unavailable | None:
        if error.connection_invalidated:
            if getattr(error.orig, "sqlstate", None) == READ_ONLY:
                self._note_writes(error.orig)
            self._reads.expire_connections()  # they lead to the same lost server
            return Unavailable("Postgres: the connection was lost")
        return unavailable_after(error.orig and error.orig.__cause__)  # the driver's

    def _expire_connections(self) -> None:
        """Because the server hangs, or its machine closed no connection. A statement that began
        before the last time proves nothing about newer connections."""
        writes = cast("FairPool", self._writes.pool)
        if writes.expire_connections(once_in=self._settings.statement_seconds + 1):
            self._reads.expire_connections()

    def _note_writes(self, refused: BaseException | None) -> None:
        """Logs the beginning and the end of a failover."""
        if self._takes_writes == (refused is None):
            return
        self._takes_writes = refused is None
        if refused:
            log.warning("Postgres takes no writes", server=self.name, reason=str(refused))
        else:
            log.info("Postgres takes writes again", server=self.name)

    def _session(self) -> AsyncSession:
        return AsyncSession(
            self._writes,
            sync_session_class=self.session_class,
            expire_on_commit=False,
            close_resets_only=False,  # nobody would commit the write of a later task
            info={"cache": self.cache},
        )

    async def __aenter__(self) -> Self:
        self._reads = reading_pool(self._settings, self._settings.read_url)
        self._reader = Reader(self._reads, self._settings.pool_wait_seconds, self.cache)
        return self

    async def __aexit__(self, *_: object) -> None:
        await close_in_time(self._reads.close())
        await close_in_time(self._writes.dispose())


async def _closed(session: AsyncSession) -> None:
    if session.in_transaction():  # begun by a listener
        await session.close()
    else:  # AsyncSession makes a task and a greenlet
        session.sync_session.close()


def _on_error(failure: ExceptionContext) -> None:
    driver_error = failure.original_exception.__cause__
    if isinstance(driver_error, asyncpg.PostgresError):
        _drop_values(driver_error)
        # SQLAlchemy then replaces all older connections. It does not notice a connection that is
        # lost during its setup.
        failure.is_disconnect |= driver_error.sqlstate == READ_ONLY or isinstance(
            driver_error, asyncpg.PostgresConnectionError
        )


def _drop_values(error: asyncpg.PostgresError) -> None:
    error.detail = None  # holds values of the row, and would be logged


def _is_from_the_driver(error: BaseException) -> bool:
    names = (one.f_globals.get("__name__", "") for one, _ in traceback.walk_tb(error.__traceback__))
    return any(name.startswith(DRIVERS) for name in names)


def install(app: FastAPI) -> None:
    serve_from(app, Database(environment.read(DatabaseSettings)))


def serve_from(app: FastAPI, database: Database) -> None:
    app.state.database = database
    app.state.pools = database.pools  # of the whole process, for the log and the metrics
    health.add_readiness_check(app, database.name, database.check)


def lifespan(app: FastAPI) -> AbstractAsyncContextManager[object]:
    database: Database = app.state.database
    return database


async def read_session(connection: HTTPConnection) -> Reader:
    database: Database = connection.app.state.database
    return reader_for(connection, database)


def reader_for(connection: HTTPConnection, database: Database) -> Reader:
    """A WebSocket reads the primary: its user may write elsewhere while it is open."""
    reader = database._reader  # not by its method: each request comes here
    return reader.on_primary() if connection.scope["type"] == "websocket" else reader


async def write_session(connection: HTTPConnection) -> AsyncGenerator[AsyncSession]:
    database: Database = connection.app.state.database
    if connection.scope["type"] == "websocket":
        raise TypeError(
            "A WebSocket has no session to write, because its transaction would stay open with it."
            " Open one for each message: docs/guide/names.md#websockets"
        )
    async with database.transaction() as session:
        yield session


ReadSession = Annotated[Reader, Depends(read_session)]

# Scope "function" commits before the answer is sent, so a failed commit is never a success.
WriteSession = Annotated[AsyncSession, Depends(write_session, scope="function")]
