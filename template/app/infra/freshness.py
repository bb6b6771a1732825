# Rung's file: advancing to another stage may change it.
"""@max_stale: a query says how old its answer may be."""

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import update_wrapper
from typing import Any, Concatenate

from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.reads import Reader

# All queries with @max_stale, once the app has been imported.
stale_queries: list["StaleQuery[..., Any]"] = []


class StaleQuery[**P, R]:
    """A query with @max_stale. Call it like the query itself."""

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
        down, `max_stale` still holds. The client that wrote always sees its write. Without a
        cache, as before stage 3 and in a process that opens no app, this does nothing.
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


# Beyond this many keys at once, only half of the keys are counted, then a quarter, and so on.
MOST_KEYS = 4096


class RepeatedReads:
    """Estimates the hit ratio of a cache for @max_stale answers, before there is one.

    Samples by the hash of the key (SHARDS, FAST 2015): the sample has the hit ratio of all reads.
    """

    def __init__(self) -> None:
        self.reads = 0
        self.hits = 0
        self._mask = 0
        self._fresh_until: dict[int, float] = {}

    def note(self, query: object, args: Any, kwargs: Any, max_stale: float) -> None:
        try:
            key = hash((id(query), args, *kwargs.items()))
        except TypeError:  # a list among the arguments
            key = hash((id(query), repr(args), repr(kwargs)))
        if key & self._mask:
            return
        now = time.monotonic()
        self.reads += 1
        if self._fresh_until.get(key, 0.0) > now:
            self.hits += 1
        else:
            self._fresh_until[key] = now + max_stale
            if len(self._fresh_until) > MOST_KEYS:
                self._forget(now)

    def _forget(self, now: float) -> None:
        kept = {key: until for key, until in self._fresh_until.items() if until > now}
        if len(kept) > MOST_KEYS // 2:
            self._mask = self._mask * 2 + 1
            kept = {key: until for key, until in kept.items() if not key & self._mask}
        self._fresh_until = kept


repeated_reads = RepeatedReads()  # per copy: each has its own clients
