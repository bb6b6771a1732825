# Rung's file: advancing to another stage may change it.
"""Measures one request's use of the database, for its log line."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(slots=True)
class DatabaseUse:
    calls: int = 0
    seconds: float = 0.0  # of statements and COMMIT, as this process sees them
    wait_seconds: float = 0.0  # until a pool gave a connection

    def note(self, asked: float, connected: float) -> None:
        """Adds a statement that has just ended. Times come from time.perf_counter()."""
        self.calls += 1
        self.wait_seconds += connected - asked
        self.seconds += time.perf_counter() - connected


# Commands and background tasks have no request. Nothing reads what they add here.
_NO_REQUEST = DatabaseUse()  # per copy: nobody reads it
this_request: ContextVar[DatabaseUse] = ContextVar("database_use", default=_NO_REQUEST)


def time_statements(engine: AsyncEngine) -> None:
    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def begin(connection: Any, *_: Any) -> None:
        connection.info["began"] = time.perf_counter()

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def end(connection: Any, *_: Any) -> None:
        began = connection.info["began"]
        this_request.get().note(began, began)


@contextmanager
def commit_timed() -> Iterator[None]:
    """Does not count a flush before the COMMIT twice, because its statements are timed already."""
    use = this_request.get()
    began = time.perf_counter() - use.seconds - use.wait_seconds
    yield
    use.seconds = time.perf_counter() - began - use.wait_seconds
