# Rung's file: advancing to another stage may change it.
"""Transactions get their connections in the order in which they ask, also when some give up."""

import asyncio
from contextlib import suppress

import pytest
from sqlalchemy import event, text

from app.infra.database import Database
from app.infra.read_pool import InOrder
from dev.pytest_plugin import Services
from tests.infra.conftest import until
from tests.infra.test_database import settings


async def test_a_newcomer_does_not_overtake_those_who_wait(services: Services) -> None:
    served = []
    async with Database(settings(services, write_pool=1)) as database, asyncio.TaskGroup() as tasks:

        async def ask(name: str) -> None:
            async with database.transaction() as write:
                await write.execute(text("SELECT 1"))
                served.append(name)

        @event.listens_for(database._writes.sync_engine, "checkin", once=True)
        def at_the_moment_of_release(*_: object) -> None:
            tasks.create_task(ask("newcomer"))

        async with database.transaction() as write:
            await write.execute(text("SELECT 1"))
            for name in ("first", "second"):
                tasks.create_task(ask(name))
            await until_waiting(database, 2)

    assert served == ["first", "second", "newcomer"]


async def test_a_request_that_is_cancelled_at_any_step_loses_no_connection(
    services: Services,
) -> None:
    async with Database(settings(services, write_pool=1, pool_wait_seconds=60)) as database:

        async def ask() -> None:
            async with database.transaction() as write:
                await write.execute(text("SELECT 1"))

        for steps in range(15):
            async with database.transaction() as write:
                await write.execute(text("SELECT 1"))
                cancelled, other = asyncio.create_task(ask()), asyncio.create_task(ask())
                await until_waiting(database, 2)
                if steps == 0:
                    cancelled.cancel()
            for _ in range(steps):
                await asyncio.sleep(0)
            cancelled.cancel()
            with suppress(asyncio.CancelledError):
                await cancelled
            await other
            assert database.pools()["writes"][:2] == (0, 1)


async def test_an_item_for_a_cancelled_waiter_goes_to_the_next() -> None:
    queue = InOrder[str](1)
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await asyncio.sleep(0)
    queue.put_nowait("connection")
    first.cancel()

    with pytest.raises(asyncio.CancelledError):
        await first
    assert await asyncio.wait_for(second, 300) == "connection"
    assert queue.empty()


async def test_a_waiter_that_times_out_leaves_nothing_behind() -> None:
    queue = InOrder[str](1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(queue.get(), 0.01)

    assert not queue._getters
    queue.put_nowait("connection")
    assert await queue.get() == "connection"


async def until_waiting(database: Database, count: int) -> None:
    await until(lambda: database.pools()["writes"].waiting >= count)
