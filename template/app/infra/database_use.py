# Rung's file: advancing to another stage may change it.
"""Measures one request's use of the database for the log line."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, event
from sqlalchemy.ext.asyncio import AsyncEngine


@dataclass(slots=True)
class DatabaseUse:
    calls: int = 0
    seconds: float = 0.0  # of statements and COMMIT, as this process sees them
    wait_seconds: float = 0.0  # time until a pool gave a connection

    def note(self, asked: float, connected: float) -> None:
        """Adds a statement that has just ended. Times come from time.perf_counter()."""
        self.calls += 1
        self.wait_seconds += connected - asked
        self.seconds += time.perf_counter() - connected


# For commands and background tasks, which have no request. Nothing reads these numbers.
_NO_REQUEST = DatabaseUse()  # per copy: nobody reads it
this_request: ContextVar[DatabaseUse] = ContextVar("database_use", default=_NO_REQUEST)


def time_statements(engine: AsyncEngine) -> None:
    """Not by events of the engine: they take 6% of an order's instructions."""
    dialect = engine.sync_engine.dialect

    @event.listens_for(engine.sync_engine, "connect", once=True)
    def begin(*_: object) -> None:  # after SQLAlchemy's own statements on its first connection
        for name in ("do_execute", "do_executemany", "do_execute_no_params"):
            setattr(dialect, name, _timed(dialect, name))


def _timed(dialect: Dialect, name: str) -> Callable[..., None]:
    def execute(*given: Any) -> None:
        began = time.perf_counter()
        getattr(type(dialect), name)(dialect, *given)
        this_request.get().note(began, began)

    return execute


@contextmanager
def commit_timed() -> Iterator[None]:
    """Does not count a flush before the COMMIT twice, because its statements are timed already."""
    use = this_request.get()
    began = time.perf_counter() - use.seconds - use.wait_seconds
    yield
    use.seconds = time.perf_counter() - began - use.wait_seconds
