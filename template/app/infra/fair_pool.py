# Rung's file: advancing to another stage may change it.
"""A queue that serves the request that has waited longest, and the pool of transactions on it."""

import asyncio
import time
from collections import deque
from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool.base import PoolProxiedConnection
from sqlalchemy.util.queue import AsyncAdaptedQueue

from app.infra.database_use import this_request


class InOrder[Item](asyncio.Queue[Item]):
    """Hands each item to the waiter that came first.

    asyncio.Queue only wakes that waiter. A newcomer may take the item before it runs, and the
    waiter goes back to the end: of 32 clients some waited 15 times as long as others.
    """

    # Both are of asyncio.Queue, but its type does not mention them.
    _queue: deque[Item]
    _getters: deque[asyncio.Future[Item]]

    @property
    def waiting(self) -> int:
        return sum(not waiter.done() for waiter in self._getters)

    def put_nowait(self, item: Item) -> None:
        while self._getters:
            waiter = self._getters.popleft()
            if not waiter.done():
                waiter.set_result(item)
                return
        super().put_nowait(item)

    async def get(self) -> Item:
        if not self.empty():
            return self.get_nowait()
        waiter: asyncio.Future[Item] = asyncio.get_running_loop().create_future()
        self._getters.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if not waiter.cancelled():  # it was handed an item in the same moment
                self.put_nowait(waiter.result())
            elif waiter in self._getters:
                self._getters.remove(waiter)
            raise


class _PoolQueue(AsyncAdaptedQueue[Any]):
    def __init__(self, maxsize: int = 0, use_lifo: bool = False) -> None:
        super().__init__(maxsize, use_lifo)
        self._queue = InOrder[Any](maxsize)


class FairPool(AsyncAdaptedQueuePool):
    """Also measures the wait, for the request's log line."""

    _queue_class = _PoolQueue

    def connect(self) -> PoolProxiedConnection:
        asked = time.perf_counter()
        try:
            return super().connect()
        finally:
            this_request.get().wait_seconds += time.perf_counter() - asked
