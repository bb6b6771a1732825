# Rung's file: advancing to another stage may change it.
"""Sends each read to a replica that has replayed the client's position, or to the primary."""

from datetime import timedelta
from typing import Any, Self

import asyncpg
from fastapi import FastAPI

from app.infra import database, environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import CONNECTION_LOST, TYPES_CHANGED, NotConnected
from app.infra.own_writes import commits
from app.infra.own_writes.client import this_client
from app.infra.own_writes.log_position import MAIN
from app.infra.read_pool import ReadPool
from app.infra.reads import Reader
from app.infra.replicas.replicas import Replica, Replicas, ReplicaSettings

# Another server can answer: the connection is lost, replay cancelled the read (a recovery
# conflict), this server's disk or memory fails, or a migration has not arrived here yet: a table, a
# function, a right, a schema, a value of an enum.
WORTH_ASKING_ELSEWHERE = (
    *CONNECTION_LOST,
    *TYPES_CHANGED,
    NotConnected,
    asyncpg.InterfaceError,
    asyncpg.InternalServerError,
    asyncpg.TransactionRollbackError,
    asyncpg.InsufficientResourcesError,
    asyncpg.PostgresSystemError,
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.InsufficientPrivilegeError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InvalidTextRepresentationError,
)


class RoutedReader(Reader):
    """Reads from a replica that has replayed the request's position, otherwise from the primary.

    Writes of other clients may be missing for as long as a replica may be behind.
    """

    __slots__ = ("_max_stale", "_replicas")

    def __init__(
        self,
        primary: ReadPool,
        patience: float,
        replicas: Replicas,
        max_stale: timedelta | None = None,
        cache: Any = None,
    ) -> None:
        super().__init__(primary, patience, cache)
        self._replicas = replicas
        self._max_stale = max_stale

    def needs_a_replica(self, max_stale: timedelta) -> bool:
        return self._replicas.are_needed(max_stale)

    def within(self, max_stale: timedelta) -> "RoutedReader":
        """Also from replicas that are further behind than usual, up to max_stale."""
        return RoutedReader(self._pool, self._patience, self._replicas, max_stale)

    async def _answer(self, sql: str, arguments: tuple[Any, ...]) -> list[asyncpg.Record]:
        client = this_client()
        failed: Replica | None = None
        for _ in range(2):
            replica = await self._replicas.choose(client, self._max_stale, besides=failed)
            if replica is None:
                break
            replica.reads += 1
            try:
                return await self._run(replica.pool, sql, arguments)
            except WORTH_ASKING_ELSEWHERE:
                replica.poll_soon()
                failed = replica
        return await super()._answer(sql, arguments)


class RoutedDatabase(Database):
    def __init__(
        self, settings: DatabaseSettings, replicas: ReplicaSettings, database: str = MAIN
    ) -> None:
        super().__init__(settings)
        self._replicas = Replicas(settings, replicas, database)
        self.replicas = self._replicas.replicas

    @property
    def reading_pools(self) -> dict[str, ReadPool]:
        of_replicas = {
            f"reads from {one.name}": one.pool for one in self.replicas if hasattr(one, "pool")
        }
        return super().reading_pools | of_replicas

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        seconds = self._settings.pool_wait_seconds
        self._reader = RoutedReader(self._reads, seconds, self._replicas, cache=self.cache)
        await self._replicas.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._replicas.__aexit__()
        await super().__aexit__()


def install(app: FastAPI) -> None:
    replicas = environment.read(ReplicaSettings)
    if replicas.urls and replicas.reads:
        database.serve_from(app, RoutedDatabase(environment.read(DatabaseSettings), replicas))
    else:
        database.install(app)
    if replicas.urls:
        commits.note_positions(app)
