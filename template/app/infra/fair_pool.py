# Rung's file: advancing to another stage may change it.
"""The pool of connections for transactions: it serves the request that has waited longest."""

import time
from typing import Any

from sqlalchemy.pool import AsyncAdaptedQueuePool
from sqlalchemy.pool.base import PoolProxiedConnection
from sqlalchemy.util.queue import AsyncAdaptedQueue

from app.infra.database_use import this_request
from app.infra.read_pool import InOrder


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
