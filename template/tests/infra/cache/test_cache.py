# Rung's file: advancing to another stage may change it.
"""The cache on a real Valkey: which answers clients get, how old, and how often they are loaded."""

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Iterator
from functools import partial
from types import SimpleNamespace
from uuid import uuid4

import pytest
import redis.asyncio as redis
from fastapi import BackgroundTasks, FastAPI
from httpx import AsyncClient
from pydantic import BaseModel, field_serializer, field_validator
from sqlalchemy import text
from structlog.testing import capture_logs

from app.infra import environment
from app.infra.cache.cache import EMPTY_SECONDS, Cache
from app.infra.cache.entry import STORED, Entry, format_of
from app.infra.cache.loads import HOW_FAR
from app.infra.cache.lookups import RedisAway
from app.infra.cache.server import Stats
from app.infra.connections import DatabaseSettings
from app.infra.database import Database, ReadSession, WriteSession
from app.infra.freshness import RepeatedReads, max_stale
from app.infra.own_writes.client import this_client
from app.infra.reads import Reader
from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.cache import caching
from tests.infra.cache.caching import (
    ALLOWED_SECONDS,
    NOTES,
    body,
    note,
    notes_after,
    notes_app,
    put,
    serving,
)
from tests.infra.conftest import browser, execute_sql, until

# The number of writes. A read follows each of them.
ROUNDS = int(os.environ.get("ROUNDS", "200"))
CLIENTS = 4

FIVE_MINUTES = 5 * 60

# In place of EMPTY_SECONDS: the machine may stop these tests for some seconds.
LONGER_SECONDS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[valkey.Valkey]:
    with valkey.running("cache") as server:
        yield server


@pytest.fixture(autouse=True)
async def loads(
    services: Services, server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch
) -> caching.Loads:
    """Counted from zero, on a new table, with keys that no other test has."""
    await execute_sql(services.database_url, NOTES)
    await execute_sql(services.database_url, "INSERT INTO notes VALUES (1, 'milk')")
    monkeypatch.setenv("CACHE_URL", server.url)
    monkeypatch.setenv("CACHE_PREFIX", uuid4().hex)
    # The machine may be busy, and these tests are not about speed.
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    monkeypatch.setattr("app.infra.cache.cache.EMPTY_SECONDS", (LONGER_SECONDS, LONGER_SECONDS))
    monkeypatch.setattr(caching, "loads", caching.Loads())
    return caching.loads


@pytest.fixture
def app(loads: caching.Loads) -> FastAPI:
    return notes_app()


@pytest.fixture
async def reader(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """A client that has written nothing."""
    async with serving(app) as reader:
        yield reader


@pytest.fixture
async def writer(app: FastAPI, reader: AsyncClient) -> AsyncGenerator[AsyncClient]:
    async with browser(app) as writer:
        yield writer


@pytest.fixture
async def kept(server: valkey.Valkey) -> AsyncGenerator[redis.Redis]:
    async with redis.Redis.from_url(server.url) as kept:
        yield kept


def key_of(number: int) -> str:
    return f"{os.environ['CACHE_PREFIX']}:{format_of(note).key((number,), {})}"


async def entry_of(kept: redis.Redis, number: int) -> Entry:
    raw = await kept.get(key_of(number))
    assert isinstance(raw, bytes)
    entry = Entry.parse(raw)
    assert entry
    return entry


async def let_be_due(kept: redis.Redis, number: int) -> None:
    entry = await entry_of(kept, number)
    await kept.set(key_of(number), STORED % entry._replace(due=0), keepttl=True)


async def test_the_second_read_is_answered_from_the_cache(
    reader: AsyncClient, app: FastAPI, loads: caching.Loads
) -> None:
    assert [await body(reader, "/notes/1") for _ in range(3)] == ["milk"] * 3
    assert loads.count == 1
    cache: Cache = app.state.cache
    assert (cache.stats.hits, cache.stats.misses, cache.stats.loads) == (2, 1, 1)


async def test_a_repeated_read_counts_for_the_doctor_and_a_cache_hit_does_not(
    reader: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    noted = RepeatedReads()
    monkeypatch.setattr("app.infra.cache.cache.repeated_reads", noted)
    for _ in range(3):
        await body(reader, "/notes/1")

    assert (noted.reads, noted.hits) == (1, 0)

    monkeypatch.setenv("CACHE_READS", "false")
    async with serving(notes_app()) as past_the_cache:
        for _ in range(3):
            await body(past_the_cache, "/notes/1")

    assert (noted.reads, noted.hits) == (4, 3)


async def test_500_readers_of_a_cold_key_cause_one_load_in_each_process(
    app: FastAPI, reader: AsyncClient, loads: caching.Loads
) -> None:
    async with serving(notes_app()) as reader_of_another:
        clients = [reader, reader_of_another] * 250
        found = await asyncio.gather(*(body(client, "/notes/1") for client in clients))

    assert found == ["milk"] * 500
    assert loads.count <= 2
    assert app.state.cache.stats.loads <= 1


async def test_a_due_answer_is_refreshed_by_one_process_and_nobody_waits(
    app: FastAPI, reader: AsyncClient, loads: caching.Loads, kept: redis.Redis
) -> None:
    other = notes_app()
    async with serving(other) as reader_of_other:
        assert await body(reader, "/notes/1") == "milk"
        await let_be_due(kept, 1)
        loads.gate.clear()
        for _ in range(3):
            clients = [reader, reader_of_other] * 50
            found = await asyncio.gather(*(body(client, "/notes/1") for client in clients))
            assert found == ["milk"] * 100
            await until(lambda: loads.count == 2)  # and that load does not end
        loads.gate.set()

    stats: list[Stats] = [app.state.cache.stats, other.state.cache.stats]
    assert sum(one.refreshes for one in stats) == 1
    assert sum(one.misses for one in stats) == 1


async def test_a_popular_answer_has_one_load_at_a_time_and_nobody_waits(
    app: FastAPI, reader: AsyncClient, loads: caching.Loads, kept: redis.Redis
) -> None:
    is_over = asyncio.Event()

    async def keep_reading(client: AsyncClient) -> None:
        while not is_over.is_set():
            assert await body(client, "/notes/1") == "milk"

    async def is_refreshed(loaded: int) -> bool:
        return loads.count >= loaded and not (await entry_of(kept, 1)).is_due()

    loads.seconds = 0.1
    other = notes_app()
    async with serving(other) as reader_of_other:
        assert await body(reader, "/notes/1") == "milk"
        clients = [reader, reader_of_other] * 8
        readers = asyncio.gather(*map(keep_reading, clients))
        for loaded in (2, 3):
            await kept.delete(f"{key_of(1)}:refresh")  # otherwise nobody refreshes it for 20 s
            await let_be_due(kept, 1)
            await until(partial(is_refreshed, loaded))
        is_over.set()
        await readers

    stats: list[Stats] = [app.state.cache.stats, other.state.cache.stats]
    assert loads.most_at_once == 1
    assert sum(one.misses for one in stats) == 1


async def test_an_answer_is_due_after_four_fifths_of_its_time(
    reader: AsyncClient, kept: redis.Redis
) -> None:
    before = time.time()
    await body(reader, "/notes/1")

    due = (await entry_of(kept, 1)).due / 1000
    assert due - before > 0.8 * 0.9 * FIVE_MINUTES - 1
    assert due - time.time() < 0.8 * FIVE_MINUTES


async def test_a_refresh_is_not_part_of_the_request_that_starts_it(
    reader: AsyncClient, loads: caching.Loads, kept: redis.Redis
) -> None:
    await reader.get("/notes/1", headers={"X-Request-ID": "somebody-reads-1"})
    await let_be_due(kept, 1)
    await reader.get("/notes/1", headers={"X-Request-ID": "somebody-reads-2"})

    await until(lambda: loads.count == 2)
    assert loads.request_ids == ["somebody-reads-1", None]


async def test_a_reader_that_disconnects_does_not_cancel_the_load_of_the_others(
    reader: AsyncClient, loads: caching.Loads
) -> None:
    loads.gate.clear()
    first = asyncio.create_task(body(reader, "/notes/1"))
    await until(lambda: loads.count == 1)
    second = asyncio.create_task(body(reader, "/notes/1"))
    await asyncio.sleep(0.05)
    first.cancel()
    loads.gate.set()

    assert await second == "milk"
    assert loads.count == 1


async def test_a_client_sees_its_own_write_at_once(
    app: FastAPI, reader: AsyncClient, loads: caching.Loads
) -> None:
    async def write_and_read(number: int) -> list[bool]:
        async with browser(app) as client:
            return [await sees(client, number, f"v{turn}") for turn in range(ROUNDS // CLIENTS)]

    async def sees(client: AsyncClient, number: int, written: str) -> bool:
        await put(client, number, written)
        return await body(client, f"/notes/{number}") == written

    async def keep_reading() -> None:
        while True:
            for number in range(CLIENTS):
                await body(reader, f"/notes/{number}")

    others = asyncio.create_task(keep_reading())
    seen = await asyncio.gather(*(write_and_read(number) for number in range(CLIENTS)))
    others.cancel()

    assert [of_one.count(False) for of_one in seen] == [0] * CLIENTS


async def test_a_position_cookie_lives_as_long_as_an_older_answer_may_be_cached(
    writer: AsyncClient,
) -> None:
    cookies = (await writer.put("/notes/1/butter")).headers.get_list("set-cookie")

    positions = [cookie for cookie in cookies if "__Host-wrote-" in cookie]
    lifetimes = [int(cookie.split("Max-Age=")[1].split(";")[0]) for cookie in positions]
    assert [seconds >= FIVE_MINUTES for seconds in lifetimes] == [True]


async def test_other_clients_see_a_write_after_max_stale(
    reader: AsyncClient, writer: AsyncClient
) -> None:
    began = time.monotonic()
    assert await body(reader, "/fresh-notes/1") == "milk"
    await put(writer, 1, "butter")
    if time.monotonic() - began < ALLOWED_SECONDS / 2:  # or the machine is busy
        assert await body(reader, "/fresh-notes/1") == "milk"

    await asyncio.sleep(ALLOWED_SECONDS)

    assert await body(reader, "/fresh-notes/1") == "butter"


async def test_other_clients_see_an_invalidated_answer_change_at_once(
    reader: AsyncClient, writer: AsyncClient
) -> None:
    assert await body(reader, "/notes/1") == "milk"
    await put(writer, 1, "butter")
    assert await body(reader, "/notes/1") == "milk"

    await put(writer, 1, "bread", invalidate=True)

    assert await body(reader, "/notes/1") == "bread"


async def test_a_rollback_invalidates_nothing(
    reader: AsyncClient, writer: AsyncClient, loads: caching.Loads
) -> None:
    await body(reader, "/notes/1")
    answer = await writer.put("/notes/1/butter?invalidate=true&fail=true")

    assert answer.status_code == 500
    assert await body(reader, "/notes/1") == "milk"
    assert loads.count == 1


async def test_the_answer_after_an_invalidation_is_cached_although_nobody_writes_again(
    app: FastAPI, reader: AsyncClient, writer: AsyncClient, loads: caching.Loads
) -> None:
    async def reads_while_nobody_writes() -> bool:
        """Other tests use the same Postgres. While they write, nothing is cached."""
        quiet = True
        for client in [reader, writer] * 10:
            assert await body(client, "/notes/1") == "butter"
            (found,) = await app.state.database.reader().fetch(HOW_FAR)
            quiet &= found["nobody_writes"]
        return quiet

    async with asyncio.timeout(300):
        loaded = loads.count
        await put(writer, 1, "butter", invalidate=True)
        while not await reads_while_nobody_writes():
            loaded = loads.count
            await put(writer, 1, "butter", invalidate=True)

    assert loads.count <= loaded + 3


async def test_a_load_does_not_hide_a_write_that_overtook_it(
    reader: AsyncClient, writer: AsyncClient, loads: caching.Loads
) -> None:
    loads.gate.clear()
    slow = asyncio.create_task(body(reader, "/notes/1"))
    await until(lambda: loads.count == 1)
    await put(writer, 1, "butter", invalidate=True)
    loads.gate.set()

    assert await slow == "milk"  # it was asked before
    assert await body(reader, "/notes/1") == "butter"


async def test_a_client_that_wrote_does_not_share_a_load_that_began_before(
    reader: AsyncClient, writer: AsyncClient, loads: caching.Loads
) -> None:
    loads.gate.clear()
    before = asyncio.create_task(body(reader, "/notes/1"))
    await until(lambda: loads.count == 1)
    await put(writer, 1, "butter")
    after = asyncio.create_task(body(writer, "/notes/1"))
    await asyncio.sleep(0.05)
    loads.gate.set()

    assert (await before, await after) == ("milk", "butter")
    assert loads.most_at_once == 1


async def test_an_older_answer_does_not_replace_a_newer_one(
    app: FastAPI, reader: AsyncClient, writer: AsyncClient, loads: caching.Loads
) -> None:
    loads.gate.clear()
    async with serving(notes_app()) as reader_of_another:
        older = asyncio.create_task(body(reader_of_another, "/notes/1"))
        await until(lambda: loads.count == 1)
        gate, loads.gate = loads.gate, asyncio.Event()
        loads.gate.set()
        await put(writer, 1, "butter")
        await put(writer, 2, "so that the log goes on")
        assert await body(writer, "/notes/1") == "butter"
        gate.set()
        assert await older == "milk"

    assert await body(reader, "/notes/1") == "butter"


async def test_a_released_savepoint_does_not_count_as_a_commit(
    app: FastAPI, reader: AsyncClient
) -> None:
    told: list[bool] = []

    @app.post("/savepoint")
    async def save(write: WriteSession) -> None:
        async with write.begin_nested():
            await write.execute(text("DELETE FROM notes"))
        told.append(this_client().main.has_written)

    await body(reader, "/notes/1")
    answer = await reader.post("/savepoint")

    assert told == [False]
    assert "Read-After" in answer.headers


async def test_an_empty_answer_is_cached_for_seconds_only(
    reader: AsyncClient, loads: caching.Loads, kept: redis.Redis
) -> None:
    assert [await body(reader, "/notes/404") for _ in range(3)] == [None] * 3

    assert loads.count == 1
    assert 0 < await kept.pttl(key_of(404)) <= LONGER_SECONDS * 1000
    assert max(EMPTY_SECONDS) <= 3
    await body(reader, "/notes/1")
    assert 4 * 60_000 < await kept.pttl(key_of(1)) <= FIVE_MINUTES * 1000


async def test_a_clock_that_is_hours_ahead_keeps_no_answer_for_hours(
    reader: AsyncClient, kept: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = SimpleNamespace(time=lambda: time.time() + 7200)
    monkeypatch.setattr("app.infra.cache.server.time", ahead)
    await body(reader, "/notes/1")
    assert 4 * 60_000 < await kept.pttl(key_of(1)) <= FIVE_MINUTES * 1000


async def test_a_page_without_rows_is_cached_for_seconds_only(
    reader: AsyncClient, kept: redis.Redis
) -> None:
    key = f"{os.environ['CACHE_PREFIX']}:{format_of(notes_after).key((404,), {})}"
    assert (await reader.get("/notes-after/404")).json() == {"notes": [], "next": None}
    assert 0 < await kept.pttl(key) <= LONGER_SECONDS * 1000

    await reader.get("/notes-after/0")
    key = f"{os.environ['CACHE_PREFIX']}:{format_of(notes_after).key((0,), {})}"
    assert 4 * 60_000 < await kept.pttl(key) <= FIVE_MINUTES * 1000


async def test_the_refresh_of_an_empty_answer_is_claimed_no_longer_than_the_answer_lives(
    app: FastAPI, reader: AsyncClient, kept: redis.Redis
) -> None:
    assert await body(reader, "/notes/404") is None
    await let_be_due(kept, 404)
    assert await body(reader, "/notes/404") is None

    await until(lambda: app.state.cache.stats.refreshes == 1)
    assert await kept.pttl(f"{key_of(404)}:refresh") <= LONGER_SECONDS * 200


@pytest.mark.parametrize("change", [b'{"number": 1}', b"no JSON", b""])
async def test_an_entry_that_does_not_parse_is_a_miss(
    reader: AsyncClient, kept: redis.Redis, loads: caching.Loads, change: bytes
) -> None:
    await body(reader, "/notes/1")
    entry = await kept.get(key_of(1))
    assert isinstance(entry, bytes)
    await kept.set(key_of(1), entry.replace(b'{"number":1,"body":"milk"}', change))

    assert await body(reader, "/notes/1") == "milk"
    assert loads.count == 2


class Dose(BaseModel):
    grams: float
    unit: str = "g"

    @field_validator("grams", mode="before")
    @classmethod
    def from_milligrams(cls, milligrams: float) -> float:
        return milligrams / 1000


class Doctor(BaseModel):
    name: str

    @field_serializer("name")
    def with_title(self, name: str) -> str:
        return f"Dr. {name}"


@max_stale(minutes=5)
async def dose(read: Reader, milligrams: float) -> Dose:
    return Dose(grams=milligrams)


@max_stale(minutes=5)
async def doctor(read: Reader, name: str) -> Doctor:
    return Doctor(name=name)


async def test_an_answer_that_its_json_would_change_is_not_cached(
    app: FastAPI, reader: AsyncClient
) -> None:
    read = app.state.database.reader()
    for _ in range(2):
        assert (await dose(read, 500)).grams == 0.5
        assert math.isnan((await dose(read, math.nan)).grams)
        assert (await doctor(read, "Ada")).model_dump() == {"name": "Dr. Ada"}


@max_stale(minutes=5)
async def picture(read: Reader, name: str) -> bytes:
    return name.encode("utf-16")


@max_stale(minutes=5)
async def names_of(read: Reader, doctors: Doctor) -> list[str]:
    return [doctors.name]


async def test_a_call_that_cannot_be_cached_is_answered_and_logged(
    app: FastAPI, reader: AsyncClient
) -> None:
    read = app.state.database.reader()
    with capture_logs() as lines:
        assert await picture(read, "é") == "é".encode("utf-16")
        assert await names_of(read, Doctor(name="Ada")) == ["Ada"]
        async with app.state.database.transaction() as write:
            names_of.invalidate(write, Doctor(name="Ada"))

    assert [line["query"].split(".")[-1] for line in lines] == ["picture", "names_of", "names_of"]
    assert "it takes a Doctor, which cannot be part of a key" in lines[1]["event"]
    assert "nothing was invalidated" in lines[2]["event"]


async def test_no_log_line_shows_the_arguments_of_a_query(
    app: FastAPI, reader: AsyncClient, kept: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may name a person: a search text, say."""

    async def refuse(*_: object) -> bool:
        raise RedisAway("away")

    monkeypatch.setattr(app.state.cache.server, "claim", refuse)
    await body(reader, "/notes/1")
    await let_be_due(kept, 1)
    with capture_logs() as lines:
        await body(reader, "/notes/1")
        await until(lambda: any("refreshed" in line["event"] for line in lines))
        entry = await entry_of(kept, 1)
        await kept.set(key_of(1), STORED % entry._replace(body=b"no JSON"))
        await body(reader, "/notes/1")

    assert [line["query"] for line in lines if "query" in line] == [format_of(note).name] * 2
    assert key_of(1) not in str(lines)


async def test_a_value_that_another_program_wrote_is_replaced(
    reader: AsyncClient, kept: redis.Redis, loads: caching.Loads
) -> None:
    await kept.set(key_of(1), "what is this")

    assert [await body(reader, "/notes/1") for _ in range(2)] == ["milk"] * 2
    assert loads.count == 1


async def test_without_a_url_every_read_goes_to_postgres(
    loads: caching.Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CACHE_URL")
    app = notes_app()
    async with app.router.lifespan_context(app), browser(app) as client:
        assert [await body(client, "/notes/1") for _ in range(2)] == ["milk"] * 2

    assert app.state.cache is None
    assert loads.count == 2


async def test_with_cache_reads_false_positions_are_noted_and_nothing_is_cached(
    loads: caching.Loads, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_READS", "false")
    async with serving(notes_app()) as client:
        assert [await body(client, "/notes/1") for _ in range(2)] == ["milk"] * 2
        answer = await client.put("/notes/1/butter")

    assert loads.count == 2
    assert "Read-After" in answer.headers


async def test_a_background_task_reads_through_the_cache(
    app: FastAPI, reader: AsyncClient, loads: caching.Loads
) -> None:
    seen: list[object] = []

    @app.post("/look-later")
    async def look_later(read: ReadSession, later: BackgroundTasks) -> None:
        async def look() -> None:
            seen.append(await note(read, 1))

        later.add_task(look)

    assert await body(reader, "/notes/1") == "milk"
    await reader.post("/look-later")

    assert seen == [caching.Note(number=1, body="milk")]
    assert loads.count == 1


@pytest.mark.usefixtures("services")
async def test_scripts_read_without_the_cache(loads: caching.Loads) -> None:
    async with Database(environment.read(DatabaseSettings)) as database:
        assert await note(database.reader(), 1) == await note(database.reader(), 1)

    assert loads.count == 2
