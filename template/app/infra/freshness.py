# Rung's file: advancing to another stage may change it.
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Concatenate

from app.infra.reads import Reader


def max_stale[**P, R](
    *, minutes: float = 0, seconds: float = 0
) -> Callable[
    [Callable[Concatenate[Reader, P], Awaitable[R]]],
    Callable[Concatenate[Reader, P], Awaitable[R]],
]:
    """Say of a query: if its answer is this old, nobody is hurt.

    At this stage every answer is fresh, and the promise is only written down.
    """
    allowed = timedelta(minutes=minutes, seconds=seconds)
    if not allowed:
        raise ValueError("@max_stale needs minutes or seconds: @max_stale(minutes=5)")

    def remember(
        query: Callable[Concatenate[Reader, P], Awaitable[R]],
    ) -> Callable[Concatenate[Reader, P], Awaitable[R]]:
        query.max_stale = allowed  # type: ignore[attr-defined]  # functions carry attributes
        return query

    return remember
