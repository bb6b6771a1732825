# Rung's file: advancing to another stage may change it.
"""Reads and transactions on a real Postgres, also when it is busy, closed or away."""

import asyncio
import os
import secrets
import signal
import subprocess
import traceback
from collections.abc import AsyncGenerator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from fastapi import BackgroundTasks, FastAPI
from pydantic import BaseModel
from sqlalchemy import Label, String, bindparam, column, event, literal_column, select, table, text
from sqlalchemy.exc import DBAPIError, IntegrityError, InvalidRequestError
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra import connections, environment, health
from app.infra.connections import DatabaseSettings
from app.infra.database import Database, ReadSession, WriteSession
from app.infra.environment import EnvironmentIncomplete
from app.infra.failures import OutOfRange, Unavailable
from app.infra.reads import Query, in_transaction
from dev import ports, postgres
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app, execute_sql

NOTES = table("notes", column("id"))


class Note(BaseModel):
    id: int


ALL_NOTES = Query(select(NOTES.c.id).order_by(NOTES.c.id), Note)
NOTE_BY_ID = Query(select(NOTES.c.id).where(NOTES.c.id == bindparam("note_id")), Note)


@pytest.fixture
async def database(services: Services) -> AsyncGenerator[Database]:
    async with Database(settings(services)) as database:
        yield database


@pytest.fixture
async def notes(services: Services) -> None:
    """A table that finds duplicates only at the COMMIT."""
    table = "CREATE TABLE notes (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)"
    await execute_sql(services.database_url, table)


@pytest.mark.usefixtures("notes")
async def test_a_read_session_sees_what_a_write_session_committed(
    bare: FastAPI, serve: Serve
) -> None:
    @bare.post("/notes/{note}", status_code=201)
    async def write(write: WriteSession, note: int) -> None:
        await write.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})

    @bare.get("/notes")
    async def read(read: ReadSession) -> list[Note]:
        return await read.all(ALL_NOTES)

    async with serve(bare) as client:
        assert (await client.post("/notes/2")).status_code == 201
        assert (await client.post("/notes/1")).status_code == 201
        assert (await client.get("/notes")).json() == [{"id": 1}, {"id": 2}]


@pytest.mark.usefixtures("notes")
async def test_postgres_refuses_a_write_through_a_read_session(bare: FastAPI, serve: Serve) -> None:
    async with serve(bare):
        reader = bare.state.database.reader()

        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await reader.fetch("INSERT INTO notes VALUES (1)")

        assert await reader.all(ALL_NOTES) == []


@pytest.mark.usefixtures("notes")
async def test_a_commit_that_fails_is_never_answered_with_success(
    bare: FastAPI, serve: Serve
) -> None:
    @bare.post("/twice", status_code=201)
    async def twice(write: WriteSession) -> None:
        await write.execute(text("INSERT INTO notes VALUES (1), (1)"))

    async with serve(bare) as client:
        assert (await client.post("/twice")).status_code == 500
        assert await bare.state.database.reader().all(ALL_NOTES) == []


FAILS: Query[Any] = Query(select(literal_column("1 / (random() * 0)::int").label("n")))
SLOW: Query[Any] = Query(select(literal_column("pg_sleep(9)").label("n")))


@pytest.mark.parametrize("failing", ["a statement", "a query", "a time limit"])
@pytest.mark.usefixtures("notes")
async def test_a_write_that_goes_on_after_a_failed_statement_is_never_answered_with_success(
    bare: FastAPI, serve: Serve, failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Postgres rolls such a transaction back, and calls its COMMIT a success."""

    @bare.post("/notes", status_code=201)
    async def go_on(write: WriteSession) -> None:
        await write.execute(text("INSERT INTO notes VALUES (1)"))
        with suppress(DBAPIError, asyncpg.PostgresError, TimeoutError):
            if failing == "a statement":
                await write.execute(text("SELECT 1 / (random() * 0)::int"))
            elif failing == "a query":
                await in_transaction(write).all(FAILS)
            else:
                async with asyncio.timeout(0.1):
                    await in_transaction(write).all(SLOW)

    async with serve(bare) as client:
        assert (await client.post("/notes")).status_code == 500
        assert await bare.state.database.reader().all(ALL_NOTES) == []
    assert "within `async with write.begin_nested():`" in capsys.readouterr().out


@pytest.mark.usefixtures("notes")
async def test_an_error_in_the_endpoint_rolls_its_writes_back(bare: FastAPI, serve: Serve) -> None:
    @bare.post("/half")
    async def half(write: WriteSession) -> None:
        await write.execute(text("INSERT INTO notes VALUES (1)"))
        raise RuntimeError("half-way")

    async with serve(bare) as client:
        assert (await client.post("/half")).status_code == 500
        assert await bare.state.database.reader().all(ALL_NOTES) == []


@pytest.mark.usefixtures("notes")
async def test_a_background_task_reads_what_its_request_has_written(
    bare: FastAPI, serve: Serve
) -> None:
    seen: list[Note] = []

    @bare.post("/notes")
    async def write(write: WriteSession, read: ReadSession, later: BackgroundTasks) -> None:
        async def look() -> None:
            seen.extend(await read.all(ALL_NOTES))

        await write.execute(text("INSERT INTO notes VALUES (1)"))
        later.add_task(look)

    async with serve(bare) as client:
        await client.post("/notes")
    assert seen == [Note(id=1)]


@pytest.mark.usefixtures("notes")
async def test_a_session_of_an_ended_request_takes_no_write(database: Database) -> None:
    """In a background task nobody would commit it, or return its connection to the pool."""
    async with database.transaction() as write:
        await write.execute(text("INSERT INTO notes VALUES (1)"))

    with pytest.raises(InvalidRequestError, match="closed"):
        await write.execute(text("INSERT INTO notes VALUES (2)"))
    assert database.pools()["writes"].used == 0


async def test_a_read_costs_one_round_trip(services: Services) -> None:
    async with proxy(services) as line, Database(settings(services, line.port)) as database:
        await database.reader().fetch("SELECT 1")  # connects, and prepares the statement
        line.sent.clear()

        await database.reader().fetch("SELECT 1")

        # Bind, Execute, Sync: no BEGIN before and no reset after.
        assert [message[:1] for message in line.sent] == [b"B"]


async def test_a_transaction_costs_no_round_trip_besides_its_own(services: Services) -> None:
    async with proxy(services) as line, Database(settings(services, line.port)) as database:
        for _ in range(2):  # the first connects, and prepares the statement
            line.sent.clear()
            await execute(database, "SELECT 1")

        # BEGIN, the statement, COMMIT: no ping before and no reset after.
        assert [message[:1] for message in line.sent] == [b"Q", b"B", b"Q"]


async def test_a_transaction_that_a_listener_begins_after_the_commit_is_closed(
    database: Database,
) -> None:
    async with database.transaction() as write:
        begin = "after_transaction_end"
        event.listen(write.sync_session, begin, lambda session, _: session.connection(), once=True)
        await write.execute(text("SELECT 1"))

    assert database.pools()["writes"].used == 0


@pytest.mark.usefixtures("notes")
async def test_no_value_of_a_failed_write_is_in_its_error(database: Database) -> None:
    value = secrets.randbelow(10**9) + 10
    await execute(database, "ALTER TABLE notes ADD CONSTRAINT small CHECK (id < 10)")
    with pytest.raises(IntegrityError) as failed:
        async with database.transaction() as write:
            await write.execute(text("INSERT INTO notes VALUES (:id)"), {"id": value})

    report = "".join(traceback.format_exception(failed.value))
    assert "small" in report
    assert str(value) not in report


@pytest.mark.usefixtures("notes")
async def test_more_requests_than_connections_all_finish(services: Services) -> None:
    async with Database(settings(services, read_pool=2, write_pool=2)) as database:

        async def read_while_writing() -> None:
            async with database.transaction() as write:
                await write.execute(text("SELECT 1"))
                await database.reader().all(ALL_NOTES)

        async with asyncio.timeout(300):
            await asyncio.gather(*(read_while_writing() for _ in range(50)))


async def test_a_new_connection_that_postgres_closes_at_once_makes_a_write_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Postgres stops: SQLAlchemy sets up each connection after it was opened."""
    connect = connections.connect

    async def connect_and_lose(*arguments: Any, **options: Any) -> asyncpg.Connection:
        connection = await connect(*arguments, **options)
        connection.terminate()
        return connection

    monkeypatch.setattr(connections, "connect", connect_and_lose)
    with pytest.raises(Unavailable, match="the connection was lost"):
        await execute(database, "SELECT 1")


@pytest.mark.parametrize("begin", ["select pg_catalog.version", "show transaction isolation"])
async def test_a_connection_that_is_lost_while_it_is_set_up_makes_a_write_unavailable(
    services: Services, database: Database, monkeypatch: pytest.MonkeyPatch, begin: str
) -> None:
    """SQLAlchemy asks a few questions on the first connection of a process."""
    prepare, lost = asyncpg.Connection.prepare, []

    async def lose_and_prepare(
        connection: asyncpg.Connection, statement: str, **options: Any
    ) -> Any:
        if statement.startswith(begin):
            lost.append(statement)
            with ThreadPoolExecutor() as other:  # meanwhile this thread cannot notice
                other.submit(asyncio.run, close_all_others(services)).result()
        return await prepare(connection, statement, **options)

    monkeypatch.setattr(asyncpg.Connection, "prepare", lose_and_prepare)
    with pytest.raises(Unavailable, match="the connection was lost"):
        await execute(database, "SELECT 1")
    assert lost


async def test_a_request_does_not_wait_forever_for_a_busy_pool(services: Services) -> None:
    narrow = settings(services, read_pool=1, write_pool=1, pool_wait_seconds=0.2)
    async with Database(narrow) as database:
        async with busy_reading(database):
            with pytest.raises(Unavailable, match="every reading connection is busy"):
                await database.reader().fetch("SELECT 1")

        async with database.transaction() as first:
            await first.execute(text("SELECT 1"))
            with pytest.raises(Unavailable, match="every writing connection is busy"):
                await execute(database, "SELECT 1")


@pytest.mark.slow
async def test_a_postgres_that_hangs_does_not_keep_a_process_from_ending(
    services: Services,
) -> None:
    async with AsyncExitStack() as stack:
        database = Database(settings(services))
        await database.__aenter__()
        [(reading,)] = await database.reader().fetch("SELECT pg_backend_pid()")
        async with database.transaction() as write:
            writing = await write.scalar(text("SELECT pg_backend_pid()"))
        for backend in (reading, writing):
            os.kill(backend, signal.SIGSTOP)
            stack.callback(os.kill, backend, signal.SIGCONT)

        async with asyncio.timeout(300):
            await database.__aexit__()


@asynccontextmanager
async def busy_reading(database: Database) -> AsyncGenerator[None]:
    """Holds one read connection of the pool during the block."""
    reader = database.reader()
    reading = asyncio.create_task(reader.fetch("SELECT pg_sleep(8)"))
    try:
        async with asyncio.timeout(300):
            while not any(pool.used for pool in database.pools().values()):
                if reading.done():  # connecting took longer than a request may wait
                    reading.exception()
                    reading = asyncio.create_task(reader.fetch("SELECT pg_sleep(8)"))
                await asyncio.sleep(0.01)
        yield
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_connections_that_postgres_closed_are_replaced(
    services: Services, database: Database
) -> None:
    await database.reader().fetch("SELECT 1")
    await execute(database, "SELECT 1")

    await close_all_others(services)
    await asyncio.sleep(0.1)  # until the client's side has noticed it

    assert await database.reader().fetch("SELECT 1")
    async with database.transaction() as write:
        assert await write.scalar(text("SELECT 1")) == 1


async def test_a_read_whose_connection_is_lost_is_repeated_once(
    services: Services, database: Database
) -> None:
    read = asyncio.create_task(database.reader().fetch("SELECT 7 FROM pg_sleep(0.5)"))
    await asyncio.sleep(0.2)
    await close_all_others(services)

    assert await read == [(7,)]


async def test_a_connection_lost_in_the_middle_is_unavailable(database: Database) -> None:
    await assert_unavailable(database, "SELECT pg_terminate_backend(pg_backend_pid())")


async def test_without_postgres_the_app_starts_and_is_not_ready(
    serve: Serve, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", str(settings(services, port=ports.unused()).url))
    bare = bare_app()

    @bare.get("/read")
    async def read(read: ReadSession) -> None:
        await read.fetch("SELECT 1")

    @bare.get("/write")
    async def write(write: WriteSession) -> None:
        await write.execute(text("SELECT 1"))

    async with serve(bare) as client:
        assert (await client.get("/live")).status_code == 200
        ready = await client.get("/ready")
        assert ready.status_code == 503
        assert ready.json() == {"status": "unavailable", "unavailable": ["database"]}
        for path in ("/read", "/write"):
            answer = await client.get(path)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"path": "/nobody-made-it"}, "nobody-made-it"),
        ({"netloc": "app:wrong@127.0.0.1:{port}"}, "password authentication failed"),
        ({"query": "work_mem=much"}, "work_mem"),
        ({"query": "sslmode=require"}, "SSL"),
        ({"netloc": "app@two..dots"}, "no connection"),
    ],
)
async def test_a_connection_that_postgres_refuses_is_unavailable(
    services: Services, wrong: dict[str, str], reason: str
) -> None:
    right = urlsplit(services.database_url)
    url = right._replace(**wrong).geturl().format(port=right.port)

    async with Database(DatabaseSettings.model_validate({"url": url})) as database:
        with pytest.raises(Unavailable, match=reason):
            await database.check()
        await assert_unavailable(database, "SELECT 1", reason)


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("channel_binding=require", "write sslmode=verify-full"),
        ("pgbouncer=true", "set DATABASE_POOLED=true"),
        ("schema=public", "write search_path="),
        ("ssl=true", "write sslmode=require"),
        ("pool_size=3", "remove it"),
    ],
)
def test_a_url_parameter_that_asyncpg_does_not_know_stops_the_start_and_is_named(
    monkeypatch: pytest.MonkeyPatch, parameter: str, advice: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://ada:secret@nowhere/shop?{parameter}")

    with pytest.raises(EnvironmentIncomplete) as stopped:
        environment.read(DatabaseSettings)

    assert f"the parameter {parameter.partition('=')[0]} is not known" in str(stopped.value)
    assert advice in str(stopped.value)
    assert "DATABASE_URL" in str(stopped.value)
    assert "secret" not in str(stopped.value)


@pytest.mark.parametrize(
    ("url", "advice"),
    [
        ("ada:secret@nowhere/shop?sslmode=no-verify", "one of: disable"),
        ("ada:secret@nowhere/shop?sslmode", "bad query field"),
        ("ada:secret@nowhere/shop?port=5432", "after the host"),
        ("ada:secret@nowhere/shop?host=/cloudsql/shop", "%2Fcloudsql"),
        ("ada:secret@/shop?host=/cloudsql/shop", "empty host. Write it before the path; a socket"),
        ("ada:secret@nowhere/shop?SSLMODE=require", "the parameter SSLMODE is not known"),
        ("ada:secret@nowhere/shop?target_session_attrs=main", "main"),
        ("ada:secret@nowhere/shop?sslmode=verify-full&sslrootcert=/nowhere", "sslrootcert"),
        ("ada:secret@nowhere/shop?sslmode=verify-full&sslrootcert=system", "ca-certificates.crt"),
        ("ada:1#secret@nowhere/shop", "%23"),
        ("ada:?secret@nowhere/shop", "%3F"),
        ("ada:/secret@nowhere/shop", "%2F"),
        ("ada:0/secret@nowhere/shop", "%2F"),
        ("ada:secret,@nowhere/shop", "%2C"),
        ("ada:,secret@nowhere/shop", "%2C"),
        ("ada:secret@one:1,ada:secret@two:2/shop", "Only the first host"),
    ],
)
def test_a_url_that_no_connection_can_be_made_with_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, url: str, advice: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://{url}")

    with pytest.raises(EnvironmentIncomplete, match="  DATABASE_URL: ") as stopped:
        environment.read(DatabaseSettings)

    assert advice in str(stopped.value)
    assert "secret" not in str(stopped.value)


async def test_parameters_of_libpq_that_asyncpg_does_not_know_are_translated(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_CONNECT_SECONDS")
    query = "connect_timeout=7&channel_binding=prefer&options=-c%20application_name%3Dshop"
    url = f"{services.database_url}?{query}"
    translated = DatabaseSettings.model_validate({"url": url})

    assert translated.connect_seconds == 7
    assert DatabaseSettings.model_validate({"url": url, "connect_seconds": 2}).connect_seconds == 2
    assert "-c%20app" in str(translated.url)  # libpq, for replication, reads no + as a space
    async with Database(translated) as database:
        [(name,)] = await database.reader().fetch("SHOW application_name")
    assert name == "shop"


@pytest.mark.usefixtures("notes")
async def test_altering_a_table_under_load_causes_no_error_but_unavailable(
    services: Services, database: Database
) -> None:
    changes = "INSERT INTO notes VALUES (1) RETURNING *", "DELETE FROM notes RETURNING *"
    done = asyncio.Event()
    refused = 0

    async def write() -> None:
        nonlocal refused
        while not done.is_set():
            try:
                await execute(database, *changes)
            except Unavailable:
                refused += 1

    async def read() -> None:
        while not done.is_set():
            with suppress(Unavailable):
                await database.reader().fetch("SELECT * FROM notes")

    async with asyncio.TaskGroup() as load:
        for _ in range(2):
            load.create_task(write())
            load.create_task(read())
        connection = await asyncpg.connect(services.database_url)
        async with asyncio.timeout(300):  # until a write has met a change of the schema
            for turn in count():
                kind = "bigint" if turn % 2 else "numeric"
                await connection.execute(f"ALTER TABLE notes ALTER COLUMN id TYPE {kind}")
                if turn > 10 and refused:
                    break
                await asyncio.sleep(0.02)
        await connection.close()
        done.set()


async def assert_unavailable(database: Database, failing: str, reason: str | None = None) -> None:
    """For a read, and for a write."""
    with pytest.raises(Unavailable, match=reason):
        await database.reader().fetch(failing)
    with pytest.raises(Unavailable, match=reason):
        await execute(database, failing)


async def test_an_internal_error_of_postgres_is_unavailable(database: Database) -> None:
    """During a migration, Postgres reports one of many such errors. This one needs no migration."""
    internal_error = "SELECT range_in('1', 23, -1) IS NULL"
    await assert_unavailable(database, internal_error, "type 23 is not a range type")


REFUSALS = ["53100", "53200", "53400", "57P05", "25P04", "58030", "55006", "57P04", "08006"]


@pytest.mark.parametrize("code", REFUSALS)
async def test_a_server_that_refuses_for_now_is_unavailable(database: Database, code: str) -> None:
    """Without disk or memory, or while the object is in use or the server goes away."""
    failing = f"DO $$ BEGIN RAISE 'not now' USING ERRCODE = '{code}'; END $$"
    await assert_unavailable(database, failing, "not now|the connection was lost")


# Of the database, and of a small table in it that the test does not need.
POSTGRES_OID, PG_TS_PARSER_OID = "5", "3601"


@pytest.fixture
def without_transaction_ids() -> Iterator[str]:
    """URL of a Postgres that gives none until somebody runs VACUUM."""

    def create(data: Path) -> None:
        postgres._create_cluster_once(data)
        next_id = 2**31 - 76 * 2**15  # Postgres stops 3 million before the end
        user = postgres.SERVER_USER
        subprocess.run(
            [postgres.binaries() / "pg_resetwal", "-D", data, "-x", str(next_id)],
            check=True,
            env=postgres.environment(),
            user=user,
            group=user,
            extra_groups=None if user is None else [],
        )
        # Autovacuum would give new ids at once. It stops at a page that it cannot read.
        (data / "base" / POSTGRES_OID / PG_TS_PARSER_OID).write_bytes(b"no page " * 1024)

    folder = postgres.own_folder("rung-wraparound")
    server = postgres.Postgres(folder, postgres.TEMPORARY_SETTINGS, create=create, remove=True)
    with server.running():
        yield f"{server.url}/postgres"


async def test_a_server_without_transaction_ids_is_unavailable_for_writes(
    services: Services, without_transaction_ids: str
) -> None:
    async with Database(settings(services, url=without_transaction_ids)) as database:
        await database.reader().fetch("SELECT 1")
        with pytest.raises(Unavailable, match="not accepting commands that assign new"):
            await execute(database, "CREATE TABLE notes (id int)")


@pytest.mark.usefixtures("notes")
async def test_a_role_that_has_lost_its_rights_is_unavailable_until_it_has_them(
    services: Services,
) -> None:
    async with (
        new_role(services) as (owner, role, url),
        Database(settings(services, url=url)) as database,
    ):
        with pytest.raises(Unavailable, match="permission denied for table notes"):
            await database.reader().fetch("SELECT id FROM notes")
        with pytest.raises(Unavailable, match="permission denied for table notes"):
            await execute(database, "DELETE FROM notes")
        await owner.execute(f"GRANT ALL ON notes TO {role}")
        await database.reader().fetch("SELECT id FROM notes")
        await execute(database, "DELETE FROM notes")


async def test_while_there_is_no_room_for_more_connections_those_that_are_open_count_as_ready(
    services: Services,
) -> None:
    async with (
        new_role(services) as (owner, role, url),
        Database(settings(services, url=url, read_pool=1, write_pool=1)) as database,
    ):
        await owner.execute(f"ALTER ROLE {role} CONNECTION LIMIT 1")
        await database.reader().fetch("SELECT 1")
        await database.check()
        with pytest.raises(Unavailable, match="too many connections"):
            await execute(database, "SELECT 1")
        with pytest.raises(Unavailable, match="takes no writes"):
            await database.check()
        # More than one: a refused connection may count for a moment.
        await owner.execute(f"ALTER ROLE {role} CONNECTION LIMIT 9")
        await execute(database, "SELECT 1")
        await owner.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await database.check()
        database._reads.expire_connections()
        with pytest.raises(Unavailable, match="too many connections"):
            await database.check()


@asynccontextmanager
async def new_role(services: Services) -> AsyncGenerator[tuple[asyncpg.Connection, str, str]]:
    """The owner's connection, the name of the role, and its URL."""
    owner = await asyncpg.connect(services.database_url)
    role = f"role_{secrets.token_hex(4)}"
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'of-a-test'")
    url = urlsplit(services.database_url)
    login = f"{role}:of-a-test@{url.hostname}:{url.port}"
    try:
        yield owner, role, url._replace(netloc=login).geturl()
    finally:
        await owner.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")
        await owner.close()


PERMANENT = ["P0001", "0A000", "XX001", "42P01", "42501", "55000"]


@pytest.mark.parametrize("code", PERMANENT)
async def test_a_permanent_error_is_not_unavailable(database: Database, code: str) -> None:
    """A trigger of the team's, which may raise any code; a missing table, a bad page."""
    failing = f"DO $$ BEGIN RAISE 'it never works' USING ERRCODE = '{code}'; END $$"
    with pytest.raises(asyncpg.PostgresError, match="it never works"):
        await database.reader().fetch(failing)
    with pytest.raises(DBAPIError, match="it never works"):
        await execute(database, failing)


async def driver_of(write: AsyncSession) -> asyncpg.Connection:
    raw: Any = await (await write.connection()).get_raw_connection()
    return raw.driver_connection


async def test_no_value_of_a_failed_copy_is_in_its_error(database: Database) -> None:
    value = secrets.randbelow(10**9) + 10

    async def copy(database: Database) -> None:
        async with database.transaction() as write:
            driver = await driver_of(write)
            await driver.execute("CREATE TABLE doses (n int CONSTRAINT small CHECK (n < 10))")
            await driver.copy_records_to_table("doses", records=[(value,)])

    with pytest.raises(asyncpg.CheckViolationError) as failed:
        await copy(database)

    report = "".join(traceback.format_exception(failed.value))
    assert "small" in report
    assert f"({value})" not in report


@pytest.mark.parametrize(
    "failing",
    [
        "SELECT pg_terminate_backend(pg_backend_pid())",
        "DO $$ BEGIN RAISE SQLSTATE '40P01'; END $$",
        "DO $$ BEGIN RAISE SQLSTATE '25006'; END $$",  # as on a server that was the primary
    ],
)
async def test_a_statement_past_sqlalchemy_that_may_succeed_later_is_unavailable(
    database: Database, failing: str
) -> None:
    with pytest.raises(Unavailable):
        async with database.transaction() as write:
            await (await driver_of(write)).execute(failing)
    await execute(database, "SELECT 1")


async def test_a_type_that_the_driver_cannot_copy_is_our_mistake(database: Database) -> None:
    async def copy(database: Database) -> None:
        async with database.transaction() as write:
            await write.execute(text("CREATE EXTENSION IF NOT EXISTS citext"))
            await write.execute(text("CREATE TABLE mails (address citext)"))
            driver = await driver_of(write)
            await driver.copy_records_to_table("mails", records=[("a@b.c",)])

    with pytest.raises(asyncpg.InternalClientError, match="encoder for type citext"):
        await copy(database)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ([], asyncpg.InterfaceError),
        (["four"], asyncpg.DataError),
        ([2**40], OutOfRange),
    ],
)
async def test_a_value_that_the_driver_cannot_send_is_no_lost_connection(
    database: Database, values: list[object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        async with database.transaction() as write:
            await (await driver_of(write)).fetch("SELECT $1::int", *values)
    await execute(database, "SELECT 1")


TOO_LATE = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))
TOO_EARLY = datetime.min.replace(tzinfo=timezone(timedelta(hours=12)))
OUT_OF_RANGE = [
    *(("text", "\0"), ("text", "half: \ud800"), ("jsonb", "\0")),
    *(("smallint", 2**15), ("int", 2**31), ("bigint", -(2**63) - 1), ("bigint", 10**100)),
    *(("timestamptz", TOO_LATE), ("timestamptz", TOO_EARLY)),
]


@pytest.mark.parametrize(("kind", "value"), OUT_OF_RANGE)
async def test_a_value_that_postgres_cannot_hold_is_the_clients_mistake(
    database: Database, kind: str, value: Any
) -> None:
    with pytest.raises(OutOfRange):
        await database.reader().fetch(f"SELECT $1::{kind}", value)
    with pytest.raises(OutOfRange):
        async with database.transaction() as write:
            await in_transaction(write).fetch(f"SELECT $1::{kind}", value)


@pytest.mark.parametrize(
    ("refusing", "value"),
    [
        ("SELECT $1::int + 2147483647", 1),
        ("SELECT $1::text::bigint", "9" * 20),
        ("SELECT timestamptz 'epoch' + $1 * interval '1 year'", 10**6),
        ("INSERT INTO words VALUES ($1, NULL)", "longer"),
        (
            "INSERT INTO words VALUES (NULL, (SELECT string_agg(md5(n::text || $1), '')"
            " FROM generate_series(1, 300) AS n))",
            "long",
        ),
        ("SELECT 'ab' LIKE $1", "a\\"),
        ("SELECT 'a' ~ $1", "["),
        ("SELECT 1 LIMIT $1", -1),
        ("SELECT 1 OFFSET $1", -1),
        ("SELECT repeat('[', $1)::json", 10**6),
    ],
)
async def test_a_value_that_postgres_cannot_use_is_the_clients_mistake(
    database: Database, capsys: pytest.CaptureFixture[str], refusing: str, value: Any
) -> None:
    await execute(database, "CREATE TABLE words (short varchar(5), found text UNIQUE)")
    with pytest.raises(OutOfRange):
        async with database.transaction() as write:
            await (await driver_of(write)).fetch(refusing, value)
    assert "9" * 20 not in capsys.readouterr().out


async def test_a_division_by_zero_is_our_mistake(database: Database) -> None:
    with pytest.raises(asyncpg.DivisionByZeroError):
        await database.reader().fetch("SELECT 1 / $1::int", 0)


@pytest.mark.parametrize(("kind", "value"), [("int", "5"), ("text", 5), ("timestamptz", "now")])
async def test_a_value_of_another_type_is_our_mistake(
    database: Database, kind: str, value: Any
) -> None:
    with pytest.raises(asyncpg.DataError):
        await database.reader().fetch(f"SELECT $1::{kind}", value)


@pytest.mark.usefixtures("notes")
async def test_no_number_and_no_text_in_a_path_makes_a_request_fail(
    bare: FastAPI, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    @bare.get("/notes/{note_id}")
    async def note(read: ReadSession, note_id: int) -> Note | None:
        return await read.first(NOTE_BY_ID, note_id=note_id)

    @bare.put("/names/{name}")
    async def name(write: WriteSession, name: str) -> None:
        await write.execute(select(bindparam("name", name, String)))

    async with serve(bare) as client:
        answers = [await client.get(f"/notes/{2**31}"), await client.put("/names/n%00l")]

    assert [answer.status_code for answer in answers] == [422, 422]
    assert str(2**31) not in capsys.readouterr().out


@pytest.mark.usefixtures("services")
def test_tests_open_no_connection_with_tls() -> None:
    assert os.environ["PGSSLMODE"] == "disable"


@pytest.mark.usefixtures("notes")
async def test_connections_to_a_server_that_became_read_only_are_replaced(
    services: Services,
) -> None:
    changes = "INSERT INTO notes VALUES (1)", "DELETE FROM notes"
    async with Database(settings(services, read_pool=1, write_pool=1)) as database:
        await execute(database, "SET default_transaction_read_only = on")
        [(old,)] = await database.reader().fetch("SELECT pg_backend_pid()")
        with pytest.raises(Unavailable):
            await execute(database, *changes)

        await execute(database, *changes)
        [(new,)] = await database.reader().fetch("SELECT pg_backend_pid()")
    assert new != old


@pytest.mark.usefixtures("postgres_ends_statements")
async def test_a_statement_that_runs_too_long_is_stopped(services: Services) -> None:
    async with Database(settings(services, statement_seconds=0.2)) as database:
        with pytest.raises(Unavailable, match="a query took too long"):
            await database.reader().fetch("SELECT pg_sleep(5)")
        with pytest.raises(Unavailable, match="statement timeout"):
            await execute(database, "SELECT pg_sleep(5)")


@pytest.mark.slow
async def test_a_server_that_does_not_answer_is_unavailable_in_time(services: Services) -> None:
    async with (
        proxy(services) as line,
        Database(settings(services, line.port, statement_seconds=0.1)) as database,
    ):
        await database.reader().fetch("SELECT 1")
        await execute(database, "SELECT 1")
        line.is_silent = True

        async with asyncio.timeout(300):
            await assert_unavailable(database, "SELECT 1")


@pytest.mark.slow
async def test_when_a_server_is_gone_without_a_word_one_request_finds_out_for_all_connections(
    services: Services,
) -> None:
    """Its machine has lost its power, say, and its name leads to another server now."""
    pools = settings(services, read_pool=3, write_pool=3, statement_seconds=3)
    pid = "SELECT pg_backend_pid()"
    async with Database(pools) as database, AsyncExitStack() as stack:
        reader = database.reader()
        async with AsyncExitStack() as open_:
            opened = [await database._reads.acquire(60) for _ in range(3)]
            writing = [await open_.enter_async_context(database.transaction()) for _ in range(3)]
            backends = [await one.connection.fetchval(pid) for one in opened]
            backends += [await one.scalar(text(pid)) for one in writing]
            for one in opened:
                database._reads.release(one)
        for backend in backends:
            os.kill(backend, signal.SIGSTOP)
            stack.callback(os.kill, backend, signal.SIGCONT)

        first = await asyncio.gather(
            reader.fetch("SELECT 1"), execute(database, "SELECT 1"), return_exceptions=True
        )
        assert [type(one) for one in first] == [Unavailable] * 2
        for _ in range(3):
            await reader.fetch("SELECT 1")
            await execute(database, "SELECT 1")


@pytest.mark.slow
async def test_a_write_does_not_use_a_connection_that_a_firewall_may_have_dropped(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "IDLE_SECONDS", 0.5)
    async with Database(settings(services, write_pool=1)) as database, AsyncExitStack() as stack:

        async def backend() -> int:
            async with database.transaction() as write:
                found: int = await write.scalar(text("SELECT pg_backend_pid()"))
                return found

        before = await backend()
        os.kill(before, signal.SIGSTOP)  # it answers nothing, as behind such a firewall
        stack.callback(os.kill, before, signal.SIGCONT)
        await asyncio.sleep(0.6)
        assert await backend() != before


async def test_the_timeouts_of_one_outage_replace_the_connections_once(database: Database) -> None:
    async def backends() -> set[int]:
        [(reading,)] = await database.reader().fetch("SELECT pg_backend_pid()")
        async with database.transaction() as write:
            return {reading, await write.scalar(text("SELECT pg_backend_pid()"))}

    before = await backends()
    database._expire_connections()
    after = await backends()
    database._expire_connections()
    assert await backends() == after
    assert not before & after


async def test_a_timeout_of_the_requests_own_work_is_not_blamed_on_postgres(
    database: Database,
) -> None:
    async def pay() -> None:
        async with database.transaction() as write:
            await write.execute(text("SELECT 1"))
            async with asyncio.timeout(0.01):
                await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await pay()


async def test_a_busy_pool_does_not_mean_that_the_process_is_not_ready(services: Services) -> None:
    narrow = settings(services, read_pool=1, pool_wait_seconds=5)
    async with Database(narrow) as database, busy_reading(database):
        await database.check()


@pytest.mark.slow
async def test_postgres_counts_as_ready_while_open_connections_answer_and_new_ones_are_slow(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_SECONDS", 1)
    async with (
        proxy(services) as line,
        Database(settings(services, line.port, read_pool=1, pool_wait_seconds=60)) as database,
    ):
        app = FastAPI()
        health.add_readiness_check(app, "database", database.check)

        async def becomes(unavailable: list[str]) -> None:
            async with asyncio.timeout(300):
                while await health.unavailable_now(app) != unavailable:
                    pass

        done = asyncio.Event()

        async def keep_reading() -> None:
            while not done.is_set():
                await database.reader().fetch("SELECT pg_sleep(0.1)")

        line.accepts.clear()
        await becomes(["database"])  # no connection is open yet
        line.accepts.set()
        await database.reader().fetch("SELECT 1")
        line.accepts.clear()
        await becomes([])
        # A health check that waits in this queue would be too late.
        async with asyncio.TaskGroup() as crowd:
            for _ in range(12):
                crowd.create_task(keep_reading())
            await becomes([])
            done.set()
        database._note_writes(Unavailable("a failover"))
        await becomes(["database"])
        database._note_writes(None)
        await becomes([])
        line.is_silent = True
        await becomes(["database"])


async def test_json_columns_are_read_as_python_values(database: Database) -> None:
    class Document(BaseModel):
        content: dict[str, list[int]]

    stored: Label[Any] = literal_column("""'{"sizes": [1, 2]}'::jsonb""").label("content")
    found = await database.reader().first(Query(select(stored), Document))

    assert found == Document(content={"sizes": [1, 2]})


async def execute(database: Database, *statements: str) -> None:
    """In one transaction."""
    async with database.transaction() as write:
        for statement in statements:
            await write.execute(text(statement))


@dataclass
class Line:
    """A proxy before Postgres that records what is sent, and can stop forwarding."""

    port: int
    sent: list[bytes]
    is_silent: bool = False
    accepts: asyncio.Event = field(default_factory=asyncio.Event)
    replaced: tuple[bytes, bytes] | None = None  # old bytes and new bytes, replaced once


@asynccontextmanager
async def proxy(services: Services) -> AsyncGenerator[Line]:
    line = Line(port=0, sent=[])
    line.accepts.set()
    postgres = urlsplit(services.database_url)

    async def forward(client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        with closing(answers):
            await line.accepts.wait()
            server, requests = await asyncio.open_connection(postgres.hostname, postgres.port)
            with closing(requests):
                await asyncio.gather(pump(client, requests, line.sent), pump(server, answers, []))

    async def pump(
        source: asyncio.StreamReader, to: asyncio.StreamWriter, seen: list[bytes]
    ) -> None:
        while part := await source.read(2**16):
            seen.append(part)
            if line.replaced and line.replaced[0] in part:
                part = part.replace(*line.replaced)
                line.replaced = None
            if not line.is_silent:
                to.write(part)
        to.close()

    listener = await asyncio.start_server(forward, "127.0.0.1", 0)
    line.port = listener.sockets[0].getsockname()[1]
    try:
        yield line
    finally:
        listener.close()


def settings(services: Services, port: int | None = None, **changes: Any) -> DatabaseSettings:
    url = urlsplit(services.database_url)
    if port is not None:
        url = url._replace(netloc=url.netloc.replace(f":{url.port}", f":{port}"))
    return DatabaseSettings.model_validate({"url": url.geturl(), **changes})


async def close_all_others(services: Services) -> None:
    # With a timeout it waits until the connection has ended.
    closed = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    await execute_sql(services.database_url, closed)
