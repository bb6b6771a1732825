# Rung's file: advancing to another stage may change it.
"""The minimum position of every session, because Redis may have lost a session's newest one."""

import asyncio
import time
from collections.abc import Callable
from contextvars import Context

import asyncpg

from app.infra.failures import Unavailable
from app.infra.own_writes.client import OwnWrites
from app.infra.own_writes.log_position import NOT_KNOWN, WRITTEN_UP_TO, Position, reachable
from app.infra.reads import Reader


class LeastPosition:
    """A new connection may lead to a server that restarted or failed over without the position of
    the last write. Every such write is older than the connection, so a position of the primary from
    after it covers all of them. One query for each new connection to Redis."""

    def __init__(self, reader: Callable[[], Reader]) -> None:
        self._reader = reader
        self._until = 0.0
        self._asked: asyncio.Task[Position] | None = None

    def note_connection(self) -> None:
        self._until = time.monotonic() + OwnWrites.remembered.total_seconds()
        self._asked = None

    async def now(self) -> Position | None:
        if time.monotonic() > self._until:
            return None
        if self._asked is None:
            self._asked = asyncio.create_task(self._ask(), context=Context())
        return await asyncio.shield(self._asked)

    async def _ask(self) -> Position:
        asking = self._asked
        try:
            (found,) = await self._reader().on_primary().fetch(WRITTEN_UP_TO)
        except (Unavailable, asyncpg.PostgresError):
            if self._asked is asking:
                self._asked = None
            return NOT_KNOWN
        return reachable(found["timeline_id"], found["lsn"])
