# Rung's file: advancing to another stage may change it.
import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from app.infra.failures import Unavailable
from app.infra.log_position import Position


class Load:
    """An answer on its way from Postgres, for all who ask meanwhile."""

    task: asyncio.Task[bytes]
    as_of: Position | None = None  # all that was committed before is in it

    def shows(self, must_see: Position | None) -> bool:
        return must_see is None or (self.as_of is not None and must_see < self.as_of)


class Turn:
    """`async with` it: so many have one at a time. Raises Unavailable when none comes."""

    def __init__(self, at_once: int, patience: float) -> None:
        self._at_once = asyncio.Semaphore(at_once)
        self._patience = patience

    async def __aenter__(self) -> None:
        if not self._at_once.locked():
            await self._at_once.acquire()  # Without the timeout, which takes longer than this.
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._at_once.acquire()
        except TimeoutError as error:
            raise Unavailable("Postgres: too many reads at once past the cache") from error

    async def __aexit__(self, *_: object) -> None:
        self._at_once.release()


class Loads:
    """What goes to Postgres past the cache: of each key one at a time, and so many in all."""

    def __init__(self, at_once: int, patience: float) -> None:
        self.turn = Turn(at_once, patience)
        self._running: dict[str, Load] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def share(
        self,
        key: str,
        must_see: Position | None,
        fetch: Callable[[Load], Awaitable[bytes]],
    ) -> bytes:
        """Goes on when whoever asked first has left."""
        load = self._running.get(key)
        if load and not load.shows(must_see):
            await asyncio.wait([load.task])
            load = self._running.get(key)  # Began after we came, so it shows all that we must see.
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
