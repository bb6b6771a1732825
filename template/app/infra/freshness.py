# Rung's file: advancing to another stage may change it.
"""@max_stale: a query says how old its answer may be."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Concatenate

from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.reads import Reader
from app.infra.repeated_reads import repeated_reads

# All queries with @max_stale, once the app has been imported.
stale_queries: list["StaleQuery[..., Any]"] = []


class StaleQuery[**P, R]:
    """A query with @max_stale, called like the query itself."""

    def __init__(
        self, query: Callable[Concatenate[Reader, P], Awaitable[R]], max_stale: timedelta
    ) -> None:
        self.ask = query
        self.max_stale = max_stale
        self._seconds = max_stale.total_seconds()
        update_wrapper(self, query)
        stale_queries.append(self)  # per copy: the same in all

    def __call__(self, read: Reader, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]:
        if read.cache is None:
            repeated_reads.note(self, args, kwargs, self._seconds)
            return self.ask(read.within(self.max_stale), *args, **kwargs)
        answer: Awaitable[R] = read.cache.read(self, read, args, kwargs)
        return answer

    def invalidate(self, write: AsyncSession, /, *args: P.args, **kwargs: P.kwargs) -> None:
        """Remove the cached answer for these arguments when `write` commits.

        This only shortens the time in which other clients see an older answer. While the cache is
        away, `max_stale` still holds. The client that wrote always sees its write. Without a
        cache, as before stage 3 and in scripts, this does nothing.
        """
        if cache := write.info.get("cache"):
            cache.invalidate_after(write.sync_session, self, args, kwargs)


def max_stale[**P, R](
    *, minutes: float = 0, seconds: float = 0
) -> Callable[[Callable[Concatenate[Reader, P], Awaitable[R]]], StaleQuery[P, R]]:
    """Marks a query whose answer may be this old.

    A client still sees its own writes at once.
    """
    allowed = timedelta(minutes=minutes, seconds=seconds)
    if not allowed:
        raise ValueError("@max_stale needs minutes or seconds: @max_stale(minutes=5)")

    def decorate(query: Callable[Concatenate[Reader, P], Awaitable[R]]) -> StaleQuery[P, R]:
        return StaleQuery(query, allowed)

    return decorate
