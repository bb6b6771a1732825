# Rung's file: advancing to another stage may change it.
"""Reads get their connections in the order in which they ask, and lose none, whatever happens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from functools import partial
from typing import Any

import asyncpg
import pytest

from app.infra import read_pool
from app.infra.connections import close_in_time
from app.infra.read_pool import ReadPool
from app.infra.reads import Reader
from dev.pytest_plugin import Services
from tests.infra.conftest import until


@pytest.fixture
async def pool(services: Services) -> AsyncGenerator[ReadPool]:
    pool = ReadPool(partial(asyncpg.connect, services.database_url), 1)
    yield pool
    await close_in_time(pool.close())


async def test_connections_are_given_in_the_order_of_asking(pool: ReadPool) -> None:
    served = []

    async def ask(name: str) -> None:
        pooled = await pool.acquire(60)
        served.append(name)
        pool.release(pooled)

    held = await pool.acquire(60)
    async with asyncio.TaskGroup() as tasks:
        for name in ("first", "second"):
            tasks.create_task(ask(name))
        await until_waiting(pool, 2)
        pool.release(held)
        await ask("newcomer")

    assert served == ["first", "second", "newcomer"]


async def test_the_connection_used_last_is_taken_first(services: Services) -> None:
    pool = ReadPool(partial(asyncpg.connect, services.database_url), 2)
    first, second = await pool.acquire(60), await pool.acquire(60)
    pool.release(second)
    pool.release(first)

    assert await pool.acquire(60) is first
    pool.terminate()


async def test_a_closed_connection_leaves_its_place_behind_the_open_ones(
    services: Services,
) -> None:
    pool = ReadPool(partial(asyncpg.connect, services.database_url), 2)
    kept, lost = await pool.acquire(60), await pool.acquire(60)
    pool.release(kept)
    lost.connection.terminate()
    pool.release(lost)
    await asyncio.gather(*pool._closings)

    assert await pool.acquire(60) is kept
    pool.terminate()


async def test_a_read_loses_its_connection_when_its_pool_is_terminated_between_two_messages(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app terminates the pool of a replica that stops answering, also during a read."""
    prepare = asyncpg.Connection._get_statement

    async def prepare_then_terminate(*arguments: Any, **options: Any) -> Any:
        prepared = await prepare(*arguments, **options)
        pool.terminate()
        return prepared

    monkeypatch.setattr(asyncpg.Connection, "_get_statement", prepare_then_terminate)
    with pytest.raises(ConnectionResetError):
        await Reader(pool, 60)._run(pool, "SELECT 1", ())


async def test_a_read_that_is_cancelled_at_any_step_loses_no_connection(pool: ReadPool) -> None:
    for steps in range(15):
        held = await pool.acquire(60)
        cancelled, other = asyncio.create_task(ask(pool)), asyncio.create_task(ask(pool))
        await until_waiting(pool, 2)
        if steps == 0:
            cancelled.cancel()
        pool.release(held)
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        assert await other == 1
        await until_idle(pool)


async def test_cancelled_while_a_connection_is_opened_frees_its_place(services: Services) -> None:
    async def connect() -> asyncpg.Connection:
        for _ in range(5):
            await asyncio.sleep(0)
        return await asyncpg.connect(services.database_url)

    pool = ReadPool(connect, 1)
    for steps in range(5):
        opening = asyncio.create_task(ask(pool))
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        with suppress(asyncio.CancelledError):
            await opening
        assert await asyncio.wait_for(ask(pool), 300) == 1
        await until_idle(pool)
        pool.expire_connections()
    await close_in_time(pool.close())


async def test_the_cancellation_of_one_statement_never_ends_the_next(pool: ReadPool) -> None:
    sleep = "SELECT pg_sleep($1)"
    held = await pool.acquire(60)
    for _ in range(5):
        await held.connection.fetch(sleep, 0)  # prepared, so that the next one runs at once
        slow = asyncio.create_task(held.connection.fetch(sleep, 60))
        await asyncio.sleep(0.001)
        slow.cancel()
        with suppress(asyncio.CancelledError):
            await slow
        pool.release(held)
        following = await pool.acquire(60)
        assert following is not held
        assert await following.connection.fetchval("SELECT 1") == 1
        held = following
    pool.release(held)


async def test_a_connection_that_cannot_be_opened_gives_its_place_to_the_next() -> None:
    asked = asyncio.Event()

    async def refuse() -> asyncpg.Connection:
        await asked.wait()
        raise ConnectionRefusedError

    pool = ReadPool(refuse, 1)
    tries = [asyncio.create_task(pool.acquire(60)) for _ in range(3)]
    await until_waiting(pool, 2)
    asked.set()

    failed = await asyncio.wait_for(asyncio.gather(*tries, return_exceptions=True), 300)
    assert [type(error) for error in failed] == [ConnectionRefusedError] * 3
    assert (pool.used, pool.idle, pool.waiting) == (0, 0, 0)
    assert pool._free.qsize() == 1
    pool.terminate()


async def test_a_waiter_that_gives_up_leaves_nothing_behind(pool: ReadPool) -> None:
    held = await pool.acquire(60)
    with pytest.raises(TimeoutError):
        await pool.acquire(0.01)

    assert pool.waiting == 0
    pool.release(held)
    assert (pool.used, pool.idle) == (0, 1)


async def test_a_connection_lost_while_idle_or_in_use_is_replaced(pool: ReadPool) -> None:
    lost = await pool.acquire(60)
    lost.connection.terminate()
    pool.release(lost)
    idle = await pool.acquire(60)
    pool.release(idle)
    idle.connection.terminate()

    assert await ask(pool) == 1
    assert (pool.used, pool.idle) == (0, 1)


async def test_a_place_is_free_again_when_a_server_that_hangs_answers(services: Services) -> None:
    answers = asyncio.Event()

    async def connect() -> asyncpg.Connection:
        await answers.wait()
        return await asyncpg.connect(services.database_url)

    pool = ReadPool(connect, 2)
    for _ in range(2):
        tries = await asyncio.gather(
            *(pool.acquire(0.05) for _ in range(4)), return_exceptions=True
        )
        assert [type(error) for error in tries] == [TimeoutError] * 4
    answers.set()

    assert await asyncio.gather(*(ask(pool) for _ in range(4))) == [1] * 4
    await until(lambda: pool._free.qsize() == 2)  # both have opened
    await close_in_time(pool.close())


async def test_a_connection_that_opens_after_its_read_gave_up_serves_the_next_one(
    services: Services,
) -> None:
    """While the network is slow, a check of /ready ends after a second each time."""
    answers = asyncio.Event()
    tries = 0

    async def connect() -> asyncpg.Connection:
        nonlocal tries
        tries += 1
        await answers.wait()
        return await asyncpg.connect(services.database_url)

    pool = ReadPool(connect, 2)
    with pytest.raises(TimeoutError):
        await pool.acquire(0.05)
    answers.set()
    await until_idle(pool)

    assert await ask(pool) == 1
    assert tries == 1
    await close_in_time(pool.close())


async def test_a_read_that_opens_a_connection_ends_with_its_pool(services: Services) -> None:
    """The app terminates the pool of a replica that hangs, and asks the next server."""
    begun = asyncio.Event()

    async def hang() -> asyncpg.Connection:
        begun.set()
        await asyncio.Event().wait()
        return await asyncpg.connect(services.database_url)

    pool = ReadPool(hang, 1)
    tries = [asyncio.create_task(pool.acquire(600)) for _ in range(2)]
    await begun.wait()
    await until_waiting(pool, 1)
    pool.terminate()

    ended = await asyncio.wait_for(asyncio.gather(*tries, return_exceptions=True), 300)
    assert [type(error) for error in ended] == [asyncpg.InterfaceError] * 2


async def test_a_pool_that_is_ended_refuses_those_who_wait(pool: ReadPool) -> None:
    reading = asyncio.create_task(ask(pool, "SELECT pg_sleep(60)"))
    waiting = [asyncio.create_task(ask(pool)) for _ in range(3)]
    await until_waiting(pool, 3)
    await until(lambda: pool.used)
    pool.terminate()

    ended = await asyncio.wait_for(asyncio.gather(reading, *waiting, return_exceptions=True), 300)
    lost = (asyncpg.InterfaceError, asyncpg.ConnectionDoesNotExistError)
    assert [isinstance(error, lost) for error in ended] == [True] * 4


async def test_a_transaction_left_open_does_not_reach_the_next_reader(pool: ReadPool) -> None:
    held = await pool.acquire(60)
    await held.connection.execute("BEGIN")
    pool.release(held)

    following = await pool.acquire(60)
    assert not following.connection.is_in_transaction()
    pool.release(following)


async def test_expired_connections_serve_nobody_else(pool: ReadPool) -> None:
    held = await pool.acquire(60)
    waiting = asyncio.create_task(pool.acquire(60))
    await until_waiting(pool, 1)
    pool.expire_connections()
    pool.release(held)

    following = await waiting
    assert following is not held
    pool.release(following)
    pool.expire_connections()
    last = await pool.acquire(60)
    assert last is not following
    assert following.connection.is_closed()
    pool.release(last)


async def test_a_late_timeout_of_an_old_connection_keeps_the_new_ones(services: Services) -> None:
    pool = ReadPool(partial(asyncpg.connect, services.database_url), 3)
    first, second = await pool.acquire(60), await pool.acquire(60)
    pool.expire_with(first)
    new = await pool.acquire(60)
    pool.release(new)
    pool.expire_with(second)

    assert await pool.acquire(60) is new
    pool.terminate()


async def test_connections_that_nobody_needs_are_closed(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_pool, "IDLE_SECONDS", 0.05)
    pool = ReadPool(partial(asyncpg.connect, services.database_url), 1)
    await ask(pool)
    await until(lambda: not pool._open)

    assert await ask(pool) == 1
    await close_in_time(pool.close())


async def test_a_connection_is_replaced_after_many_statements(
    pool: ReadPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_pool, "MOST_STATEMENTS", 2)
    first = await pool.acquire(60)
    pool.release(first)
    assert await pool.acquire(60) is first
    pool.release(first)
    second = await pool.acquire(60)
    assert second is not first
    pool.release(second)


async def test_closing_serves_those_who_wait_and_refuses_newcomers(pool: ReadPool) -> None:
    held = await pool.acquire(60)
    waiting = asyncio.create_task(ask(pool))
    await until_waiting(pool, 1)
    closing = asyncio.create_task(pool.close())
    await until_waiting(pool, 2)

    with pytest.raises(asyncpg.InterfaceError, match="closed"):
        await pool.acquire(60)
    assert await held.connection.fetchval("SELECT 1") == 1
    pool.release(held)
    await asyncio.wait_for(closing, 300)
    assert await waiting == 1
    assert held.connection.is_closed()


async def test_closing_that_takes_too_long_ends_running_reads(pool: ReadPool) -> None:
    reading = asyncio.create_task(ask(pool, "SELECT pg_sleep(60)"))
    await until(lambda: pool._open)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pool.close(), 0.1)

    with pytest.raises((asyncpg.InterfaceError, asyncpg.PostgresError, OSError)):
        await asyncio.wait_for(reading, 300)


async def ask(pool: ReadPool, sql: str = "SELECT 1") -> object:
    pooled = await pool.acquire(60)
    try:
        return await pooled.connection.fetchval(sql)
    finally:
        pool.release(pooled)


async def until_waiting(pool: ReadPool, count: int) -> None:
    await until(lambda: pool.waiting >= count)


async def until_idle(pool: ReadPool) -> None:
    """A cancelled statement may still be ending."""
    await until(lambda: not pool.used and pool._free.qsize() == pool.most)
