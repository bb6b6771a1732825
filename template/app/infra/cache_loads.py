# Rung's file: advancing to another stage may change it.
import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from contextvars import Context, ContextVar
from typing import Any

from app.infra.failures import Unavailable
from app.infra.log_position import Position

_has_turn: ContextVar[bool] = ContextVar("has_turn", default=False)


class Load:
    """An answer on its way from Postgres, for all who ask meanwhile."""

    task: asyncio.Task[bytes]
    as_of: Position | None = None  # all that was committed before is in it

    def shows(self, must_see: Position | None) -> bool:
        return must_see is None or (self.as_of is not None and must_see < self.as_of)


class Loads:
    """What goes to Postgres past the cache: of each key one at a time, and so many in all."""

    def __init__(self, at_once: int, patience: float) -> None:
        self._at_once = asyncio.Semaphore(at_once)
        self._patience = patience
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

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Raises Unavailable. Who has a turn needs no second one for what it asks within."""
        if _has_turn.get():
            yield
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._at_once.acquire()
        except TimeoutError as error:
            raise Unavailable("Postgres: too many reads at once past the cache") from error
        outside = _has_turn.set(True)
        try:
            yield
        finally:
            _has_turn.reset(outside)
            self._at_once.release()

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
