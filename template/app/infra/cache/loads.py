# Rung's file: advancing to another stage may change it.
import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any

from app.infra.failures import Unavailable
from app.infra.own_writes.log_position import Position


class Load:
    """An answer on its way from Postgres, for all who ask meanwhile."""

    task: asyncio.Task[bytes]
    as_of: Position | None = None  # all that was committed before is in it

    def shows(self, must_see: Position | None) -> bool:
        return must_see is None or (self.as_of is not None and must_see < self.as_of)


class Turns:
    """So many at a time, in the order in which they came.

    asyncio.Semaphore with asyncio.timeout takes three times as long, and while the cache is away
    most requests wait here.
    """

    def __init__(self, at_once: int, patience: float) -> None:
        self._free = at_once
        self._patience = patience
        self._waiting: deque[tuple[float, asyncio.Future[None]]] = deque()
        self._watch: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Raises Unavailable when none comes."""
        if self._free:
            self._free -= 1
            return
        loop = asyncio.get_running_loop()
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append((loop.time() + self._patience, mine))
        if self._watch is None:
            self._watch = loop.call_later(self._patience, self._send_away)
        try:
            await mine
        except asyncio.CancelledError:
            came_meanwhile = mine.done() and not mine.cancelled() and not mine.exception()
            if came_meanwhile:
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            _, first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                return
        self._free += 1

    def _send_away(self) -> None:
        """One timer for all: who came first has waited longest."""
        loop = asyncio.get_running_loop()
        self._watch = None
        while self._waiting:
            until, first = self._waiting[0]
            if until > loop.time():
                self._watch = loop.call_at(until, self._send_away)
                return
            self._waiting.popleft()
            if not first.done():
                first.set_exception(Unavailable("Postgres: too many reads at once past the cache"))


class Loads:
    """What goes to Postgres past the cache: of each key one at a time, and so many in all."""

    def __init__(self, at_once: int, patience: float) -> None:
        self.turns = Turns(at_once, patience)
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
