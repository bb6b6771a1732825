# Rung's file: advancing to another stage may change it.
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any, Self

import asyncpg
import sqlalchemy.exc
from fastapi import Depends, FastAPI, Request
from pydantic import PositiveFloat, PositiveInt, PostgresDsn, UrlConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import BigInteger, DateTime, MetaData, Text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from app.infra import environment, health
from app.infra.failures import Unavailable
from app.infra.reads import CONNECTION_LOST, Reader, leave_as_it_is, prepare_reading_connection

# A statement that ran too long or waited too long for a lock, a deadlock, a conflict.
WORTH_ANOTHER_TRY = frozenset({"57014", "55P03", "40P01", "40001"})


class DatabaseSettings(BaseSettings):
    """Each process opens at most read_pool + write_pool connections."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: Annotated[PostgresDsn, UrlConstraints(allowed_schemes=["postgresql", "postgres"])]
    read_pool: PositiveInt = 16
    write_pool: PositiveInt = 8
    pool_wait_seconds: PositiveFloat = 5
    connect_seconds: PositiveFloat = 3
    statement_seconds: PositiveFloat = 10

    @property
    def direct_url(self) -> str:
        """For what needs one session from beginning to end, as migrations do."""
        return str(self.url)


class Base(DeclarativeBase):
    # Times know their zone, text and integers have no limit to run into later.
    type_annotation_map = {datetime: DateTime(timezone=True), int: BigInteger, str: Text}  # noqa: RUF012
    # Alembic can only drop what has a name, and these are the names it will look for.
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class Database:
    """Two pools on one Postgres: one that can only read, one for transactions.

    They are apart so that Postgres refuses a write from the first, and so that a request which
    reads while its transaction is open can never wait for a connection that it holds itself.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._reads: asyncpg.Pool
        self._writes = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect,
            pool_size=settings.write_pool,
            max_overflow=0,
            pool_timeout=settings.pool_wait_seconds,
            pool_pre_ping=True,
        )

    def reader(self) -> Reader:
        return Reader(self._reads, self._settings.pool_wait_seconds)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[AsyncSession]:
        """Commits at the end, rolls back when an exception leaves it. Raises Unavailable."""
        try:
            async with AsyncSession(self._writes, expire_on_commit=False) as session:
                yield session
                await session.commit()
        except sqlalchemy.exc.TimeoutError as error:
            raise Unavailable("Postgres: every writing connection is busy") from error
        except (asyncpg.InternalClientError, TimeoutError) as error:
            raise Unavailable("Postgres: the connection was lost, or did not answer") from error
        except sqlalchemy.exc.DBAPIError as error:
            if error.connection_invalidated:
                raise Unavailable("Postgres: the connection was lost") from error
            if getattr(error.orig, "sqlstate", None) in WORTH_ANOTHER_TRY:
                raise Unavailable(f"Postgres: {error.orig}") from error
            raise

    async def check(self) -> None:
        """On a connection of its own: that every other is busy does not mean that we are down."""
        connection = await self._connect()
        await connection.close()

    async def __aenter__(self) -> Self:
        # No connection is made yet: a process starts while Postgres is away, and is not ready.
        self._reads = await asyncpg.create_pool(
            min_size=0,
            max_size=self._settings.read_pool,
            connect=self._connect_for_reading,
            init=prepare_reading_connection,
            reset=leave_as_it_is,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reads.close()
        await self._writes.dispose()

    async def _connect_for_reading(self, *_: Any, **pool_options: Any) -> asyncpg.Connection:
        return await self._connect(read_only="on", **pool_options)

    async def _connect(self, read_only: str = "off", **options: Any) -> asyncpg.Connection:
        try:
            return await asyncpg.connect(
                str(self._settings.url),
                timeout=self._settings.connect_seconds,
                # The server keeps its own limit; this one is for a server that does not answer.
                command_timeout=self._settings.statement_seconds + 1,
                server_settings={
                    "default_transaction_read_only": read_only,
                    "statement_timeout": f"{self._settings.statement_seconds}s",
                    "idle_in_transaction_session_timeout": "30s",
                    # Compiling a plan takes longer than a request's query should run.
                    "jit": "off",
                },
                **options,
            )
        except (TimeoutError, *CONNECTION_LOST) as error:
            raise Unavailable("Postgres: no connection could be opened") from error


def install(app: FastAPI) -> None:
    database = Database(environment.read(DatabaseSettings))
    app.state.database = database
    health.add_readiness_check(app, "database", database.check)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    database: Database = app.state.database
    async with database:
        yield


def database_of(request: Request) -> Database:
    database: Database = request.app.state.database
    return database


async def read_session(request: Request) -> Reader:
    return database_of(request).reader()


async def write_session(request: Request) -> AsyncGenerator[AsyncSession]:
    async with database_of(request).transaction() as session:
        yield session


ReadSession = Annotated[Reader, Depends(read_session)]

# Scope "function" commits before the answer goes out: a commit that fails is never a success.
WriteSession = Annotated[AsyncSession, Depends(write_session, scope="function")]
