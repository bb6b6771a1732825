# Rung's file: advancing to another stage may change it.
"""The pool of connections for reads: it serves the request that has waited longest."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass

import asyncpg

# A firewall may drop a connection that is quiet for longer, and tell nobody.
IDLE_SECONDS = 300.0
# After this many statements a connection is replaced: its server process keeps memory of each one.
MOST_STATEMENTS = 50_000
# A server that does not answer must not keep a connection open.
CLOSE_SECONDS = 1.0


class InOrder[Item](asyncio.Queue[Item]):
    """Hands each item to the waiter that came first.

    asyncio.Queue only wakes that waiter. A newcomer may take the item before that waiter runs. Then
    the waiter goes back to the end: of 32 clients, some waited 15 times as long as others.
    """

    # Both are of asyncio.Queue, but its type does not mention them.
    _queue: deque[Item]
    _getters: deque[asyncio.Future[Item]]

    @property
    def waiting(self) -> int:
        # A copy, because metrics are read by another thread.
        return sum(not waiter.done() for waiter in list(self._getters))

    def put_nowait(self, item: Item) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        super().put_nowait(item)

    def put_back(self, item: Item) -> None:
        self.put_nowait(item)

    async def get(self) -> Item:
        if not self.empty():
            return self.get_nowait()
        waiter: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._getters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was handed an item in the same moment
                self.put_back(waiter.result())
            elif waiter in self._getters:
                self._getters.remove(waiter)
            raise


@dataclass(slots=True, eq=False)
class Pooled:
    connection: asyncpg.Connection
    generation: int
    statements: int = 0
    idle_since: float = 0.0


class _Places(InOrder[Pooled | None], asyncio.LifoQueue[Pooled | None]):
    """A place is a connection, or None: a new one may be opened. The one used last comes first."""

    def put_back(self, place: Pooled | None) -> None:
        """None comes after all open connections."""
        self.put_nowait(place)
        if place is None and self._queue:
            self._queue.insert(0, self._queue.pop())


class ReadPool:
    """Opens connections when they are needed.

    Each runs one statement at a time in autocommit, so it needs no reset. asyncpg's own pool makes
    a proxy, a future, a timer and a task for each statement.
    """

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], most: int) -> None:
        self.most = most
        self.answered_statements = 0
        self._connect = connect
        self._free = _Places()
        for _ in range(most):
            self._free.put_nowait(None)
        self._open: set[Pooled] = set()
        self._opening: set[asyncio.Timeout] = set()
        self._generation = 0
        self._closed = False
        self._closings: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(IDLE_SECONDS / 10, self._close_unused)

    @property
    def used(self) -> int:
        return len(self._open) - self.idle

    @property
    def idle(self) -> int:
        return sum(place is not None for place in list(self._free._queue))

    @property
    def waiting(self) -> int:
        return self._free.waiting

    async def acquire(self, patience: float) -> Pooled:
        """Raises TimeoutError, and whatever opening a connection raises."""
        if not self._free.empty():
            place = self._free.get_nowait()
            if place and self._is_usable(place):
                return place
            self._free.put_nowait(place)
        self._refuse_if_closed()
        async with asyncio.timeout(patience):
            place = await self._free.get()
            return place if place and self._is_usable(place) else await self._replace(place)

    def release(self, pooled: Pooled) -> None:
        connection = pooled.connection
        pooled.statements += 1
        if (
            pooled.generation == self._generation
            and not connection.is_closed()
            and pooled.statements < MOST_STATEMENTS
            and not connection._protocol._is_cancelling()
            and not connection.is_in_transaction()
        ):
            self.answered_statements += 1
            pooled.idle_since = self._loop.time()
            self._free.put_nowait(pooled)
        else:
            self._close_soon(pooled)

    def expire_connections(self) -> None:
        """Replaces all connections: none of the present ones serves another request."""
        self._generation += 1

    def expire_with(self, pooled: Pooled) -> None:
        """Replaces all connections, unless this one is from before the last replacement."""
        self._generation = max(self._generation, pooled.generation + 1)

    async def close(self) -> None:
        """Serves those who wait already, and waits until all connections are back."""
        self._closed = True
        try:
            places = [await self._free.get() for _ in range(self.most)]
            await asyncio.gather(*(_close(place) for place in places if place))
        finally:
            self.terminate()

    def terminate(self) -> None:
        """Running statements, and attempts to connect, end as if the connection was lost."""
        self._closed = True
        self._timer.cancel()
        for pooled in self._open:
            pooled.connection.terminate()
        while self._opening:
            self._opening.pop().reschedule(self._loop.time())

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise asyncpg.InterfaceError("the pool is closed")

    def _is_usable(self, pooled: Pooled) -> bool:
        return pooled.generation == self._generation and not pooled.connection.is_closed()

    async def _replace(self, place: Pooled | None) -> Pooled:
        if place:
            place.connection.terminate()
            self._open.discard(place)
        opening = self._loop.create_task(self._opened())
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            # While the network or the machine is slow, each one would give up before the end.
            opening.add_done_callback(self._keep_for_the_next)
            raise

    async def _opened(self) -> Pooled:
        generation = self._generation
        try:
            self._refuse_if_closed()
            pooled = Pooled(await self._new_connection(), generation)
        except BaseException:
            self._free.put_back(None)
            raise
        self._open.add(pooled)
        if self._closed:
            pooled.connection.terminate()
        return pooled

    def _keep_for_the_next(self, opening: asyncio.Task[Pooled]) -> None:
        if not opening.cancelled() and opening.exception() is None:
            opening.result().idle_since = self._loop.time()
            self._free.put_nowait(opening.result())

    async def _new_connection(self) -> asyncpg.Connection:
        """Fails as soon as the pool is terminated, because the server may never answer."""
        opening = asyncio.timeout(None)
        self._opening.add(opening)
        try:
            async with opening:
                return await self._connect()
        except TimeoutError:
            self._refuse_if_closed()
            raise
        finally:
            self._opening.discard(opening)

    def _close_soon(self, pooled: Pooled) -> None:
        """Its place is free once it is closed, so that Postgres never has more than `most`."""
        closing = self._loop.create_task(self._free_place(pooled))
        self._closings.add(closing)
        closing.add_done_callback(self._closings.discard)

    async def _free_place(self, pooled: Pooled) -> None:
        try:
            await _close(pooled)
        finally:
            self._open.discard(pooled)
            self._free.put_back(None)

    def _close_unused(self) -> None:
        self._timer = self._loop.call_later(IDLE_SECONDS / 10, self._close_unused)
        long_ago = self._loop.time() - IDLE_SECONDS
        for place in [one for one in self._free._queue if one and one.idle_since < long_ago]:
            self._free._queue.remove(place)
            self._close_soon(place)


async def _close(pooled: Pooled) -> None:
    """Waits for a running cancellation too, because that might otherwise end the next statement."""
    with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
        await pooled.connection.close(timeout=CLOSE_SECONDS)
    pooled.connection.terminate()
