# Rung's file: advancing to another stage may change it.
"""The numbers about the database in each request's log line and in the line of each minute."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy import Double, bindparam, func, select, text

from app.infra.database import Database, ReadSession, WriteSession
from app.infra.freshness import MOST_KEYS, RepeatedReads, max_stale, repeated_reads
from app.infra.logs import LogSettings, configure
from app.infra.process_log import Processor, processor, watch
from app.infra.reads import Query, Reader, in_transaction
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app
from tests.infra.test_database import busy_reading, settings

SLEEP = "SELECT pg_sleep(0.05)"
SLEEPS = Query(select(func.pg_sleep(bindparam("seconds", type_=Double)).label("slept")))


@pytest.fixture
def counting(bare: FastAPI) -> FastAPI:
    @bare.get("/reads")
    async def reads(read: ReadSession) -> None:
        for _ in range(3):
            await read.fetch(SLEEP)

    @bare.get("/writes")
    async def writes(write: WriteSession) -> None:
        for _ in range(2):
            await write.execute(text(SLEEP))

    @bare.get("/batches")
    async def batches(write: WriteSession) -> None:
        connection = await write.connection()
        await connection.execute(text("SELECT pg_sleep(:half)"), [{"half": 0.025}] * 2)

    @bare.get("/queries")
    async def queries(write: WriteSession) -> None:
        await in_transaction(write).all(SLEEPS, seconds=0.05)
        await in_transaction(write).executemany(SLEEPS, [{"seconds": 0.025}] * 2)

    return bare


def line(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    logged = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
    found: dict[str, Any] = [one for one in logged if one["event"] == "request"][-1]
    return found


@pytest.mark.parametrize(
    ("route", "calls"), [("/reads", 3), ("/writes", 2), ("/batches", 1), ("/queries", 2)]
)
async def test_a_requests_line_counts_its_statements_and_their_time(
    counting: FastAPI, serve: Serve, capsys: pytest.CaptureFixture[str], route: str, calls: int
) -> None:
    async with serve(counting) as client:
        await client.get(route)
        first = line(capsys)
        await client.get(route)
        second = line(capsys)

    assert [one["db_calls"] for one in (first, second)] == [calls, calls]
    assert 50 * calls <= second["db_ms"] <= second["duration_ms"] - second["db_wait_ms"] + 0.2


@pytest.mark.usefixtures("services")
async def test_a_request_that_waits_for_a_connection_says_how_long(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_READ_POOL", "1")
    monkeypatch.setenv("DATABASE_WRITE_POOL", "1")
    narrow = bare_app()

    @narrow.get("/read")
    async def read(read: ReadSession) -> None:
        await read.fetch(SLEEP)

    @narrow.get("/write")
    async def write(write: WriteSession) -> None:
        await write.execute(text(SLEEP))

    configure(LogSettings(format="json"))
    async with serve(narrow) as client:
        for route in ("/read", "/write"):
            capsys.readouterr()
            await asyncio.gather(*(client.get(route) for _ in range(3)))
            logged = [json.loads(one) for one in capsys.readouterr().out.splitlines()]
            assert max(one["db_wait_ms"] for one in logged) >= 80


async def test_a_commit_is_time_of_the_database_and_no_statement_counts_twice(
    counting: FastAPI, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    @counting.get("/deferred")
    async def deferred(write: WriteSession) -> None:
        await write.execute(text("CREATE TEMP TABLE late (id int PRIMARY KEY) ON COMMIT DROP"))
        await write.execute(
            text(
                "CREATE FUNCTION pg_temp.wait() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END'"
            )
        )
        await write.execute(
            text(
                "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON late"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pg_temp.wait()"
            )
        )
        await write.execute(text("INSERT INTO late VALUES (1)"))

    async with serve(counting) as client:
        await client.get("/deferred")
    found = line(capsys)

    assert found["db_calls"] == 4
    assert 200 <= found["db_ms"] <= found["duration_ms"]


async def test_a_process_logs_its_pools_and_its_event_loop(services: Services) -> None:
    narrow = settings(services, read_pool=1, write_pool=3)
    async with Database(narrow) as database, busy_reading(database):
        waiting = asyncio.create_task(database.reader().fetch("SELECT 1"))
        block = asyncio.create_task(blocks_the_loop())
        found = await watch(database.pools, 1.0)
        for task in (waiting, block):
            task.cancel()
        await asyncio.gather(waiting, block, return_exceptions=True)

    assert found["pools"]["writes"] == {"max": 3, "used": 0, "waiting": 0}
    assert found["pools"]["reads"]["used"] == 1
    assert found["pools"]["reads"]["waiting"] > 0.5
    assert found["loop_p90_ms"] >= 50
    assert found["seconds"] >= 1


async def blocks_the_loop() -> None:
    while True:
        await asyncio.sleep(0)
        time.sleep(0.15)  # noqa: ASYNC251  # that is the fault


def test_cpu_wanted_is_the_time_that_a_thread_waits_for_a_processor() -> None:
    before, after = Processor(100.0, 5.0, 1.0), Processor(110.0, 7.0, 7.0)

    assert after.since(before) == {"cpu_got": 0.2, "cpu_wanted": 0.8}
    assert after._replace(waited=None).since(before) == {"cpu_got": 0.2, "cpu_wanted": None}


def test_for_a_busy_thread_most_of_the_time_is_cpu_got_or_cpu_wanted() -> None:
    # The host of a virtual machine may hold it up for a moment, and no counter of ours shows that.
    end = time.monotonic() + 60
    while busy_share() <= 0.8:
        assert time.monotonic() < end


def busy_share() -> float:
    before = processor()
    while time.monotonic() - before.at < 0.3:
        pass
    found = processor().since(before)
    return found["cpu_wanted"] or found["cpu_got"] or 0


@contextmanager
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [1000.0]
    with monkeypatch.context() as patched:
        patched.setattr("app.infra.freshness.time.monotonic", lambda: now[0])
        yield now


def test_a_read_counts_as_repeated_when_a_cache_would_still_have_its_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = RepeatedReads()
    with clock(monkeypatch) as now:
        reads.note(print, (1,), {}, 60)
        reads.note(print, (2,), {}, 60)
        reads.note(print, ([1],), {"to": 3}, 60)
        now[0] += 59
        reads.note(print, (1,), {}, 60)
        reads.note(print, ([1],), {"to": 3}, 60)
        now[0] += 2
        reads.note(print, (2,), {}, 60)

    assert (reads.reads, reads.hits) == (6, 2)


def test_many_keys_are_sampled_and_the_share_of_repeats_stays() -> None:
    reads = RepeatedReads()
    for key in range(50_000):
        reads.note(print, (str(key),), {}, 3600)
    before = reads.reads, reads.hits
    for key in range(20_000):
        reads.note(print, (str(key),), {}, 3600)
        reads.note(print, (f"new {key}",), {}, 3600)

    assert len(reads._fresh_until) <= MOST_KEYS
    assert 0 < reads.reads - before[0] < 8_000
    share = (reads.hits - before[1]) / (reads.reads - before[0])
    assert share == pytest.approx(0.5, abs=0.1)


async def test_max_stale_notes_its_reads_while_there_is_no_cache(services: Services) -> None:
    @max_stale(minutes=1)
    async def ask(read: Reader, key: int) -> None:
        await read.fetch("SELECT $1::int", key)

    async with Database(settings(services)) as database:
        before = repeated_reads.reads, repeated_reads.hits
        for key in (1, 2, 1):
            await ask(database.reader(), key)

    assert (repeated_reads.reads - before[0], repeated_reads.hits - before[1]) == (3, 1)


async def test_the_line_comes_at_each_interval(
    bare: FastAPI, serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_PROCESS_SECONDS", "0.2")
    logged: list[str] = []
    async with serve(bare):
        async with asyncio.timeout(300):
            while len(logged) < 2:
                await asyncio.sleep(0.1)
                logged += capsys.readouterr().out.splitlines()

    found = json.loads(logged[0])
    assert found["event"] == "process"
    assert set(found["pools"]) >= {"reads", "writes"}
