# Rung's file: advancing to another stage may change it.
"""The limit of reads past the cache."""

import asyncio
import time

import pytest

from app.infra.cache.loads import ReadLimit
from app.infra.failures import Unavailable


async def use(limit: ReadLimit) -> None:
    async with limit:
        pass


async def test_waiters_are_served_in_the_order_in_which_they_came() -> None:
    limit = ReadLimit(1, seconds=10)
    came: list[int] = []

    async def read(number: int) -> None:
        async with limit:
            came.append(number)
            await asyncio.sleep(0)

    await asyncio.gather(*map(read, range(5)))

    assert came == [0, 1, 2, 3, 4]


async def test_each_waiter_that_times_out_gets_unavailable() -> None:
    limit = ReadLimit(1, seconds=0.05)
    async with limit:
        first = asyncio.create_task(use(limit))
        await asyncio.sleep(0.02)
        second = asyncio.create_task(use(limit))

        async with asyncio.timeout(300):
            failures = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(failure) for failure in failures] == [Unavailable, Unavailable]
    await use(limit)


async def test_a_waiter_cancelled_when_its_turn_comes_gives_it_to_the_next() -> None:
    limit = ReadLimit(1, seconds=10)
    async with limit:
        leaving = asyncio.create_task(use(limit))
        staying = asyncio.create_task(use(limit))
        await asyncio.sleep(0)

    leaving.cancel()

    async with asyncio.timeout(300):
        await staying


async def test_a_waiter_cancelled_as_it_times_out_releases_nothing() -> None:
    limit = ReadLimit(1, seconds=0.05)
    async with limit:
        leaving = asyncio.create_task(use(limit))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.06, leaving.cancel)
        time.sleep(0.1)  # noqa: ASYNC251  # so that both are due at once

        await asyncio.wait([leaving])

        assert leaving.cancelled() or isinstance(leaving.exception(), Unavailable)
        with pytest.raises(Unavailable):
            await use(limit)
