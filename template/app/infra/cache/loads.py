# Rung's file: advancing to another stage may change it.
"""Loads the cache's answers from Postgres: a limited number, and one at a time for each key."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

import asyncpg

from app.infra.failures import Unavailable
from app.infra.own_writes.log_position import WRITTEN_UP_TO, Position, reachable
from app.infra.reads import Reader


class ReadLimit(asyncio.Semaphore):
    """A limit: at most `at_once` loads run at the same time. Another one waits up to `seconds`."""

    def __init__(self, at_once: int, seconds: float) -> None:
        super().__init__(at_once)
        self._seconds = seconds

    async def __aenter__(self) -> None:
        """Raises Unavailable."""
        if not self.locked():
            await self.acquire()  # does not wait
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self.acquire()
        except TimeoutError as error:
            raise Unavailable("Postgres: too many reads at once past the cache") from error


class Load:
    """An answer that is being read from Postgres. Later requests for the key wait for it."""

    task: asyncio.Task[bytes]
    as_of: Position | None = None  # it shows every commit before this position

    def shows(self, min_position: Position | None) -> bool:
        return min_position is None or (self.as_of is not None and min_position < self.as_of)


class SingleFlight:
    """Requests for the same key share one load."""

    def __init__(self) -> None:
        self._running: dict[str, Load] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load(
        self, key: str, min_position: Position | None, fetch: Callable[[Load], Awaitable[bytes]]
    ) -> bytes:
        """The load continues when the request that began it is cancelled."""
        load = self._running.get(key)
        if load and not load.shows(min_position):
            await asyncio.wait([load.task])
            load = self._running.get(key)  # it began after this call, so it shows min_position
        if load is None:
            load = self._running[key] = Load()
            load.task = self.start(self._run(key, load, fetch))
        return await asyncio.shield(load.task)

    def start[T](
        self, work: Coroutine[Any, Any, T], context: Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: str, load: Load, fetch: Callable[[Load], Awaitable[bytes]]) -> bytes:
        try:
            return await fetch(load)
        finally:
            del self._running[key]


# The snapshot is taken before this sample's position, and after that of the previous sample. Nobody
# writes if no transaction runs: xmin = xmax says so for the ids below xmax, and age() = 0 says that
# Postgres has given out no newer id.
HOW_FAR = f"""
    SELECT timeline_id, lsn,
        pg_snapshot_xmin(seen) = pg_snapshot_xmax(seen)
        AND age(pg_snapshot_xmax(seen)::xid) = 0 AS nobody_writes
    FROM ({WRITTEN_UP_TO}) AS here, pg_current_snapshot() AS seen
"""  # noqa: S608  # nothing from outside


class Sampler:
    """A read that begins now shows every commit before the sampled position.

    A commit is in the log before anybody can see it. So the end of the log proves nothing about
    a commit that ends exactly there. But when nobody writes, the commit at the previous sample
    can be seen. Without this rule no answer cached after a write could be used until another write.
    """

    def __init__(self) -> None:
        self._last = Position(0, 0)
        self._running: asyncio.Task[Position | None] | None = None

    async def sample(self, read: Reader) -> Position | None:
        """None if the server is no primary. Concurrent callers share one sample."""
        if self._running is None:
            self._running = asyncio.create_task(self._ask(read))
        return await asyncio.shield(self._running)

    async def _ask(self, read: Reader) -> Position | None:
        try:
            (found,) = await read.fetch(HOW_FAR)
        except asyncpg.ObjectNotInPrerequisiteStateError:
            return None
        finally:
            self._running = None
        last, self._last = self._last, reachable(found["timeline_id"], found["lsn"])
        if not found["nobody_writes"]:
            return self._last
        return max(self._last, Position(last.timeline, last.lsn + 1))
