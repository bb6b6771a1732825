# Rung's file: advancing to another stage may change it.
import asyncio
import time

import pytest

from app.infra.cache.loads import Turns
from app.infra.failures import Unavailable


async def test_turns_come_in_the_order_of_arrival() -> None:
    turns = Turns(1, patience=10)
    came: list[int] = []

    async def use(number: int) -> None:
        await turns.take()
        came.append(number)
        await asyncio.sleep(0)
        turns.give_back()

    await asyncio.gather(*map(use, range(5)))

    assert came == [0, 1, 2, 3, 4]


async def test_each_who_waits_too_long_is_told() -> None:
    turns = Turns(1, patience=0.05)
    await turns.take()
    first = asyncio.create_task(turns.take())
    await asyncio.sleep(0.02)
    second = asyncio.create_task(turns.take())

    async with asyncio.timeout(10):
        told = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(error) for error in told] == [Unavailable, Unavailable]

    turns.give_back()
    await turns.take()


async def test_who_leaves_as_its_turn_comes_hands_it_on() -> None:
    turns = Turns(1, patience=10)
    await turns.take()
    leaving = asyncio.create_task(turns.take())
    staying = asyncio.create_task(turns.take())
    await asyncio.sleep(0)

    turns.give_back()
    leaving.cancel()

    async with asyncio.timeout(5):
        await staying


async def test_who_leaves_as_its_time_is_over_gives_nothing_back() -> None:
    turns = Turns(1, patience=0.05)
    await turns.take()
    leaving = asyncio.create_task(turns.take())
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_later(0.06, leaving.cancel)
    time.sleep(0.1)  # noqa: ASYNC251  # so that both are due at once

    await asyncio.wait([leaving])

    assert leaving.cancelled()
    with pytest.raises(Unavailable):
        await turns.take()
