# Rung's file: advancing to another stage may change it.
"""Reads of Postgres that bypass the cache: one at a time for each key, and a limit for all."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from app.infra.failures import Unavailable
from app.infra.own_writes.log_position import Position


class ReadLimit:
    """At most `at_once` at the same time; a further one waits up to `seconds`."""

    def __init__(self, at_once: int, seconds: float) -> None:
        self._semaphore = asyncio.Semaphore(at_once)
        self._seconds = seconds

    async def __aenter__(self) -> None:
        """Raises Unavailable."""
        if not self._semaphore.locked():
            await self._semaphore.acquire()  # at once
            return
        try:
            async with asyncio.timeout(self._seconds):
                await self._semaphore.acquire()
        except TimeoutError as error:
            raise Unavailable("Postgres: too many reads at once past the cache") from error

    async def __aexit__(self, *_: object) -> None:
        self._semaphore.release()


class Load:
    """An answer that is being read from Postgres. Later requests for the key wait for it."""

    task: asyncio.Task[bytes]
    as_of: Position | None = None  # it shows all that was committed before this position

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
        """The load goes on when the request that began it is cancelled."""
        load = self._running.get(key)
        if load and not load.shows(min_position):
            await asyncio.wait([load.task])
            load = self._running.get(key)  # began after this call, so it shows min_position
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
