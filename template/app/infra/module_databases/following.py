# Rung's file: advancing to another stage may change it.
"""While a module's tables move: each transaction and each read asks where the module lives now.

Only the fences of the move answer that: a side takes writes, or its fence refuses them. A
transaction asks under a shared lock that it keeps until COMMIT. A cut needs that lock exclusively.
So a cut waits for open transactions, and new ones wait for the cut and find the other side.
"""

import asyncio
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import asyncpg
from fastapi import FastAPI
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import POSTGRES_FAILS, Unavailable
from app.infra.module_databases import settings
from app.infra.module_databases.home import LOCK, TAKES_WRITES_NEW, TAKES_WRITES_OLD
from app.infra.own_writes.commits import PositionedSession
from app.infra.read_pool import ReadPool
from app.infra.reads import Reader

# Between the two commits of a cut, neither side takes writes. That lasts for some milliseconds.
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Home:
    """One of the two databases: the module may live there."""

    database: Database
    reader: Reader
    takes_writes: str
    lock: str

    async def is_home(self) -> bool:
        return await self.reader.fetch(self.takes_writes) != []

    def begun(self) -> Connection | None:
        """Begins a transaction that a cut waits for. None if the module does not live here."""
        connection = self.database.writing_engine.connect()
        try:
            driver: Any = connection.connection.driver_connection
            # One round trip. The second statement sees what was committed while the first waited.
            done = await_only(driver.execute(f"{self.lock};{self.takes_writes}"))
        except POSTGRES_FAILS as error:
            connection.invalidate()
            connection.close()
            raise Unavailable(f"Postgres: no answer where the module lives: {error}") from error
        except BaseException:
            connection.close()
            raise
        if done == "SELECT 1":
            return connection
        connection.close()
        return None


class FollowingSession(Session):
    """Its first statement, and the first one after each COMMIT, finds the module's home."""

    def get_bind(self, *_: Any, **__: Any) -> Connection:
        if not self.in_transaction():
            self.begin()
        if "home" not in self.info:
            self.info["home"] = self.info["follow"].begun()
        home: Connection = self.info["home"]
        return home

    def note_of(self, connection: Connection) -> Any:
        """Positions of the new side cannot be compared with those of the common database."""
        follow: FollowingDatabase = self.info["follow"]
        is_common = connection.engine is follow.common.writing_engine
        noting: Any = (follow.common if is_common else follow).session_class
        return noting.note_of(self, connection) if issubclass(noting, PositionedSession) else None


@event.listens_for(FollowingSession, "after_transaction_end")
def _give_back(session: Session, transaction: SessionTransaction) -> None:
    if transaction.parent is None and (home := session.info.pop("home", None)):
        home.close()


class FollowingReader(Reader):
    """Asks before each statement, so that no read is older than a write before its request. The old
    side refuses writes before the new one takes any."""

    __slots__ = ("_follow",)

    def __init__(self, pool: ReadPool, patience: float, follow: "FollowingDatabase") -> None:
        super().__init__(pool, patience)
        self._follow = follow

    def on_primary(self) -> Reader:
        return self

    async def _answer(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        reader = await self._follow.reader_at_home()
        return await reader._answer(sql, arguments)


class FollowingDatabase(Database):
    """The module's own database, which is not its home before the cut."""

    def __init__(self, settings: DatabaseSettings, module: str, common: Database) -> None:
        super().__init__(settings)
        self._module = module
        self.common = common
        self._homes: tuple[Home, Home]  # where the module was found last comes first

    def begun(self) -> Connection:
        """Begins a transaction where the module lives. The session closes the connection."""
        deadline = time.monotonic() + self._settings.pool_wait_seconds
        while True:
            lost: Unavailable | None = None
            for home in self._homes:
                try:
                    connection = home.begun()
                except Unavailable as error:
                    lost = error
                    continue
                if connection:
                    self._found(home)
                    return connection
            if lost:
                raise lost
            if time.monotonic() > deadline:
                raise Unavailable(f"Postgres: neither database takes writes of {self._module}")
            await_only(asyncio.sleep(POLL_SECONDS))

    async def reader_at_home(self) -> Reader:
        """A side that refuses writes has handed them all to the other one."""
        here, other = self._homes
        try:
            if await here.is_home():
                return here.reader
        except Unavailable:
            if not await other.is_home():
                raise
        self._found(other)
        return other.reader

    def _found(self, home: Home) -> None:
        if home is not self._homes[0]:
            self._homes = self._homes[1], self._homes[0]

    @cached_property
    def _follows(self) -> type[Session]:
        return type("Follows", (FollowingSession, self.common.session_class), {})

    def _session(self) -> AsyncSession:
        return AsyncSession(
            sync_session_class=self._follows,
            expire_on_commit=False,
            close_resets_only=False,
            info={"cache": self.common.cache, "follow": self},
        )

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        lock = LOCK.format("_shared", self._module)
        self._homes = (
            Home(
                self.common,
                self.common.reader().on_primary(),
                TAKES_WRITES_OLD.format(self._module),
                lock,
            ),
            Home(self, self._reader, TAKES_WRITES_NEW.format(self._module), lock),
        )
        self._reader = FollowingReader(self._reads, self._settings.pool_wait_seconds, self)
        return self


def own_database(app: FastAPI, module: str, own: DatabaseSettings) -> Database:
    if settings.follows(module):
        return FollowingDatabase(own, module, app.state.database)
    return Database(own)


def install(app: FastAPI) -> None:
    """Sets the class of modules' own databases. Call it before install() of the sessions."""
    app.state.own_database = own_database
    app.state.further_module_settings = ()
