# Rung's file: advancing to another stage may change it.
"""module_sessions("billing"): the sessions of a module whose tables may have their own Postgres."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from app.infra import health
from app.infra.database import Database, Pool, Pools, WriteSession, reader_for
from app.infra.module_databases import settings
from app.infra.reads import Reader

_modules: dict[str, "ModuleSessions"] = {}


class TwoDatabases(Exception):
    """Two databases cannot commit together: one could fail after the other is done."""


class Held(NamedTuple):
    """Data in each session of a module, for elsewhere()."""

    app: FastAPI
    database: Database
    beside: list[AsyncSession]  # all sessions of its request
    is_elsewhere: bool = False


@dataclass(frozen=True)
class ModuleSessions:
    """Without MODULE_…_DATABASE_URL these are ReadSession and WriteSession: a request that takes
    both has one session, and one transaction."""

    name: str

    def database(self, app: FastAPI) -> Database:
        """The module's own database, or the common one."""
        common: Database = app.state.database
        return self._own(app) or common

    async def read(self, connection: HTTPConnection) -> Reader:
        return reader_for(connection, self.database(connection.app))

    async def write(
        self, connection: HTTPConnection, common: WriteSession
    ) -> AsyncGenerator[AsyncSession]:
        app: FastAPI = connection.app
        held: Held = common.info.setdefault(Held, Held(app, app.state.database, [common]))
        own = self._own(app)
        if own is None:
            yield common
            return
        async with own.transaction() as session:
            session.info[Held] = Held(app, own, held.beside)
            held.beside.append(session)
            yield session
            # A session that has run no statement has no connection, and commits nothing.
            if session.in_transaction() and sum(one.in_transaction() for one in held.beside) > 1:
                raise TwoDatabases(
                    f"This request has open transactions in the database of {self.name!r} and in"
                    " another one. They cannot commit together, so both were rolled back. Let it"
                    " write through one session, and cross with elsewhere():"
                    " docs/guide/module_databases/second-database.md."
                )

    @asynccontextmanager
    async def transaction(self, app: FastAPI) -> AsyncGenerator[AsyncSession]:
        """For tasks and commands."""
        database = self.database(app)
        async with database.transaction() as session:
            session.info[Held] = Held(app, database, [session])
            yield session

    def _own(self, app: FastAPI) -> Database | None:
        databases: dict[str, Database] = app.state.module_databases
        return databases.get(self.name)


def module_sessions(module: str) -> ModuleSessions:
    """For a module's sessions.py, by the name of its folder:

    billing = module_sessions("billing")
    BillingRead = Annotated[Reader, Depends(billing.read)]
    BillingWrite = Annotated[AsyncSession, Depends(billing.write, scope="function")]
    """
    return _modules.setdefault(module, ModuleSessions(module))  # per copy: the same in all


def install(app: FastAPI) -> None:
    """Call it after the common database is installed, and the class of modules' own databases."""
    found = settings.read_all(_modules.keys(), app.state.further_module_settings)
    databases: dict[str, Database] = {
        module: app.state.own_database(app, module, own) for module, own in found.items()
    }
    app.state.module_databases = databases
    for module, database in databases.items():
        database.name = f"database of {module}"
        health.add_readiness_check(app, database.name, database.check)

    common: Pools = app.state.pools

    def pools() -> dict[str, Pool]:
        return common() | {
            f"{module} {name}": pool
            for module, database in databases.items()
            for name, pool in database.pools().items()
        }

    app.state.pools = pools


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        for database in app.state.module_databases.values():
            await stack.enter_async_context(database)
        yield
