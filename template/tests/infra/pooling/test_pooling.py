# Rung's file: advancing to another stage may change it.
"""Through a real PgBouncer, configured by deploy/pgbouncer.ini."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import asyncpg
import pytest
from sqlalchemy import text

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.database import Database
from app.infra.failures import NotConnected, Unavailable
from app.infra.pooling.connections import PooledConnection
from app.infra.slow_queries.__main__ import ServerSettings, make_report
from dev import postgres
from dev.pooling import pgbouncer
from dev.pooling.pgbouncer import PgBouncer
from dev.pytest_plugin import Services
from dev.server import ServerError
from tests.infra.conftest import execute_sql, fetch_value, until
from tests.infra.test_database import busy_reading, execute, proxy
from tests.infra.test_database import settings as direct_settings

URLS = {
    "url": "postgresql://bouncer/app",
    "read_url": "postgresql://bouncer/app_read",
    "direct_url": "postgresql://postgres/app",
}

WAITED = "pooler error: query_wait_timeout"


def test_other_users_of_this_machine_do_not_see_the_password_of_postgres(
    installed: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "psql"
    program.write_text('#!/bin/sh\necho "$@" >&2\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setattr(postgres, "binaries", lambda: tmp_path)
    monkeypatch.setattr(postgres, "state_folder", lambda: tmp_path)

    bouncer = pgbouncer.running("postgresql://app:hunter2@127.0.0.1:1/app")
    with pytest.raises(ServerError, match="//app@127") as failed, bouncer:
        pass

    assert "hunter2" not in str(failed.value)


@pytest.fixture
def notes(services: Services) -> None:
    table = "CREATE TABLE notes (id bigint PRIMARY KEY, body text NOT NULL)"
    asyncio.run(execute_sql(services.database_url, table))


@pytest.fixture
def bouncer(services: Services, installed: None) -> Iterator[PgBouncer]:
    with pgbouncer.running(services.database_url) as bouncer:
        yield bouncer


@pytest.mark.slow
@pytest.mark.usefixtures("notes", "installed")
async def test_two_hundred_clients_share_five_server_connections(services: Services) -> None:
    """PgBouncer has five connections for reads and five for transactions."""
    sizes = {"default_pool_size": 5, "reserve_pool_size": 0, "query_wait_timeout": 60}
    pools = {"read_pool": 100, "write_pool": 100, "pool_wait_seconds": 60, "statement_seconds": 60}
    with pgbouncer.running(services.database_url, **sizes) as bouncer:
        async with Database(settings(services, bouncer, **pools)) as database:
            read = database.reader()

            async def client(number: int) -> None:
                for turn in range(5):
                    value = number * 100 + turn
                    assert await read.fetch("SELECT $1::int AS a", value) == [(value,)]
                    [row] = await read.fetch("SELECT $1::text AS b, $2::bigint AS c", "é", value)
                    assert dict(row) == {"b": "é", "c": value}
                    rows = await read.fetch(f"SELECT generate_series(1, {number % 7}) AS n{number}")
                    assert [row[f"n{number}"] for row in rows] == list(range(1, number % 7 + 1))
                    with pytest.raises(asyncpg.DivisionByZeroError):
                        await read.fetch("SELECT $1::int / 0", value)
                    async with database.transaction() as write:
                        note = {"id": value, "body": f"note {value}"}
                        await write.execute(text("INSERT INTO notes VALUES (:id, :body)"), note)
                        # The other clients must not see it before the commit.
                        own = text("SELECT body FROM notes WHERE id = :id")
                        assert await write.scalar(own, note) == note["body"]

            await asyncio.gather(*(client(number) for number in range(200)))

            assert await read.fetch("SELECT count(*) FROM notes") == [(1000,)]
            assert await server_connections(services) <= 10


async def test_a_read_repeats_when_its_rows_differ_from_their_described_type(
    services: Services,
) -> None:
    """Without a statement cache, a read under load met this in 5 of 142 changes of a type."""
    bigint, integer = b"\0\0\0\x14\0\x08", b"\0\0\0\x17\0\x04"  # in a RowDescription
    async with proxy(services) as line:
        uncached = direct_settings(services, line.port, statement_cache=0)
        async with Database(uncached) as database:
            line.replaced = bigint, integer
            assert await database.reader().fetch("SELECT 7::bigint") == [(7,)]
            assert line.replaced is None

            line.replaced = bigint, integer
            with pytest.raises(Unavailable, match="a type has changed"):
                await execute(database, "SELECT 7::bigint")
            async with database.transaction() as write:
                assert await write.scalar(text("SELECT 7::bigint")) == 7


@pytest.mark.usefixtures("notes")
async def test_after_a_type_changed_reads_succeed_and_only_the_first_write_fails(
    services: Services, bouncer: PgBouncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PgBouncer 1.21 and newer keep prepared statements from before the change."""
    notes = "SELECT id, body FROM notes"
    await execute_sql(services.database_url, "INSERT INTO notes VALUES (7, '')")
    for kind in ("integer", "numeric", "bigint"):
        # As in a new process, but PgBouncer has seen the statement before.
        monkeypatch.setattr(PooledConnection, "comment", "")
        async with Database(settings(services, bouncer)) as database:
            with suppress(Unavailable):
                await execute(database, notes)
            await execute(database, notes)
            assert await database.reader().fetch(notes) == [(7, "")]

            await execute_sql(
                services.database_url, f"ALTER TABLE notes ALTER COLUMN id TYPE {kind}"
            )

            assert await database.reader().fetch(notes) == [(7, "")]
            with suppress(Unavailable):
                await execute(database, notes)
            await execute(database, notes)


@pytest.mark.usefixtures("notes")
async def test_postgres_refuses_a_write_through_a_read_session(
    services: Services, bouncer: PgBouncer
) -> None:
    async with Database(settings(services, bouncer)) as database:
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await database.reader().fetch("INSERT INTO notes VALUES (1, '')")

        await execute(database, "INSERT INTO notes VALUES (1, '')")
        assert await database.reader().fetch("SELECT id FROM notes") == [(1,)]


@pytest.mark.slow
async def test_slow_queries_asks_a_replica_through_the_pooler(
    services: Services, bouncer: PgBouncer
) -> None:
    url = services.database_url
    await execute_sql(url, "CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    await fetch_value(url, "SELECT count(*) FROM pg_class WHERE relname = $1", "a")
    given = settings(services, bouncer).model_dump()
    servers = ServerSettings(**given, replica_urls=[bouncer.read_url])

    report = await make_report(servers, 10)

    [through_pooler] = report.replicas
    assert through_pooler.problem is None
    assert through_pooler.statements
    # Nothing is left in the pooler's sessions, because other clients use them next.
    async with Database(settings(services, bouncer)) as database:
        for name, default in (("lock_timeout", "0"), ("plan_cache_mode", "auto")):
            assert await database.reader().fetch(f"SHOW {name}") == [(default,)]


async def test_a_name_that_can_write_is_not_used_for_reads(
    services: Services, bouncer: PgBouncer
) -> None:
    # Two names of one host. The settings cannot know that both lead to the same server.
    elsewhere = bouncer.url.replace("127.0.0.1", "localhost")
    async with Database(settings(services, bouncer, read_url=elsewhere)) as database:
        with pytest.raises(Unavailable, match="DATABASE_READ_URL leads to sessions that can write"):
            await database.reader().fetch("SELECT 1")
        with pytest.raises(Unavailable, match="DATABASE_READ_URL"):
            await database.check()


async def test_a_read_only_name_is_not_used_for_writes(
    services: Services, bouncer: PgBouncer
) -> None:
    elsewhere = bouncer.read_url.replace("127.0.0.1", "localhost")
    async with Database(settings(services, bouncer, url=elsewhere)) as database:
        with pytest.raises(Unavailable, match="DATABASE_URL leads to the pooler's read-only name"):
            await execute(database, "SELECT 1")


@pytest.mark.usefixtures("notes", "installed")
async def test_a_pooler_that_the_settings_do_not_mention_is_named(services: Services) -> None:
    """Some refuse the settings of the app's sessions, others drop them: a read could then write."""
    settings = "default_transaction_read_only,statement_timeout,jit"
    settings += ",idle_in_transaction_session_timeout"
    with (
        pgbouncer.running(services.database_url) as refusing,
        pgbouncer.running(services.database_url, ignore_startup_parameters=settings) as dropping,
    ):
        for bouncer, reason in ((refusing, "startup parameter"), (dropping, "a read could write")):
            direct = DatabaseSettings.model_validate({"url": bouncer.url})
            async with Database(direct) as database:
                told = f"{reason}.* DATABASE_POOLED=true"
                with pytest.raises(Unavailable, match=told):
                    await database.reader().fetch("INSERT INTO notes VALUES (1, '')")
                with pytest.raises(Unavailable, match=told):
                    await database.check()


@pytest.mark.parametrize("missing", ["read_url", "direct_url"])
def test_without_each_url_the_process_does_not_start(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_POOLED", "true")
    for name, url in URLS.items():
        monkeypatch.setenv(f"DATABASE_{name.upper()}", url)
    environment.read(DatabaseSettings)

    variable = f"DATABASE_{missing.upper()}"
    monkeypatch.setenv(variable, URLS["url"])
    with pytest.raises(environment.EnvironmentIncomplete, match=f"{variable}: .*DATABASE_POOLED"):
        environment.read(DatabaseSettings)
    monkeypatch.delenv(variable)
    with pytest.raises(environment.EnvironmentIncomplete) as refused:
        environment.read(DatabaseSettings)
    assert [line.split(":")[0] for line in str(refused.value).splitlines()[1:-1]] == [
        f"  {variable}"
    ]


def test_a_pooled_connection_keeps_no_statements_unless_a_setting_says_so() -> None:

    def cached(**given: Any) -> int:
        return DatabaseSettings.model_validate({**URLS, **given}).statement_cache

    assert cached() == 100
    assert cached(pooled=True) == 0
    assert cached(pooled=True, statement_cache=100) == 100


@pytest.mark.parametrize("read_only", [False, True])
async def test_a_session_begins_with_the_same_settings_with_and_without_a_pooler(
    services: Services, bouncer: PgBouncer, read_only: bool
) -> None:
    begins = """SELECT name, setting FROM pg_settings WHERE name IN (
        'default_transaction_read_only', 'statement_timeout',
        'idle_in_transaction_session_timeout', 'jit') ORDER BY name"""
    pooled = settings(services, bouncer)
    direct = DatabaseSettings.model_validate({"url": services.database_url})
    url = pooled.read_url if read_only else pooled.url
    through = await connect(pooled, url, read_only=read_only)
    past = await connect(direct, direct.url, read_only=read_only)

    assert await through.fetch(begins) == await past.fetch(begins)

    await through.close()
    await past.close()


async def test_a_direct_connection_is_one_session_with_the_apps_own_settings(
    services: Services, bouncer: PgBouncer
) -> None:
    pooled = settings(services, bouncer, statement_seconds=7)
    connection = await connect(pooled, pooled.direct_url, read_only=True)

    assert await connection.fetchval("SHOW statement_timeout") == "7s"
    assert await connection.fetchval("SHOW default_transaction_read_only") == "on"

    await connection.close()


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
async def test_postgres_stops_a_statement_that_runs_too_long(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = tmp_path / "pgbouncer.ini"
    as_deployed = pgbouncer.CONFIGURATION.read_text()
    shorter.write_text(as_deployed.replace("statement_timeout = 10000", "statement_timeout = 200"))
    monkeypatch.setattr(pgbouncer, "CONFIGURATION", shorter)
    with pgbouncer.running(services.database_url) as bouncer:
        async with Database(settings(services, bouncer)) as database:
            with pytest.raises(Unavailable, match="a query took too long"):
                await database.reader().fetch("SELECT pg_sleep(5)")
            with pytest.raises(Unavailable, match="statement timeout"):
                await execute(database, "SELECT pg_sleep(5)")


@pytest.mark.slow
async def test_a_statement_that_we_stop_waiting_for_is_stopped_on_the_server(
    services: Services, bouncer: PgBouncer
) -> None:
    async with Database(settings(services, bouncer, statement_seconds=0.1)) as database:
        with pytest.raises(Unavailable, match="a query took too long"):
            await database.reader().fetch("SELECT pg_sleep(600)")

        is_gone = """SELECT count(*) = 0 FROM pg_stat_activity WHERE state = 'active'
            AND datname = current_database() AND pid <> pg_backend_pid()"""
        await until(lambda: fetch_value(services.database_url, is_gone))


@pytest.mark.slow
async def test_postgres_away_behind_the_pooler_is_not_ready(
    services: Services, installed: None
) -> None:
    async with proxy(services) as line:
        with pgbouncer.running(services.database_url, by_port=line.port) as bouncer:
            limits = settings(services, bouncer)
            async with Database(limits) as database:
                await database.check()

                line.is_silent = True
                limits.connect_seconds = 0.5

                with pytest.raises(Unavailable):
                    await database.check()


async def test_while_the_pooler_has_no_room_for_more_clients_those_that_are_open_count_as_ready(
    services: Services, installed: None
) -> None:
    with pgbouncer.running(services.database_url, max_client_conn=2) as bouncer:
        async with Database(settings(services, bouncer)) as database:
            # The test's own look at the pooler may count as a client for a moment.
            for _ in range(600):
                with suppress(Unavailable):
                    await database.reader().fetch("SELECT 1")
                    await execute(database, "SELECT 1")
                    break
                await asyncio.sleep(0.1)

            await database.check()
            with pytest.raises(NotConnected, match="max_client_conn"):
                await database._open_connections()


@pytest.mark.slow
async def test_a_too_long_wait_at_the_pooler_is_unavailable_and_not_repeated(
    services: Services, installed: None
) -> None:
    sizes = {"default_pool_size": 1, "reserve_pool_size": 0, "query_wait_timeout": 1}
    with pgbouncer.running(services.database_url, **sizes) as bouncer:
        async with Database(settings(services, bouncer)) as database:
            await asyncio.gather(*(database.reader().fetch("SELECT 1") for _ in range(2)))
            database.reader()._patience = 0.5  # enough for connections that are open
            async with busy_reading(database):
                before = bouncer.log.count(WAITED)  # by a first read that was late
                with pytest.raises(Unavailable, match="query_wait_timeout"):
                    await database.reader().fetch("SELECT 1")
        assert bouncer.log.count(WAITED) - before == 1


@pytest.mark.slow
@pytest.mark.usefixtures("notes")
@pytest.mark.parametrize("act", [PgBouncer.reload, PgBouncer.restart])  # as the runbook does
async def test_a_reload_and_a_restart_fail_no_request(
    services: Services, bouncer: PgBouncer, act: Callable[[PgBouncer], None]
) -> None:
    async with Database(settings(services, bouncer)) as database, Load(database) as load:
        for _ in range(3):
            await asyncio.to_thread(act, bouncer)
            await load.everybody_is_served()

        assert load.failed_reads == []
        assert load.failed_writes == {}
        assert await load.lost_writes() == set()


@pytest.mark.slow
@pytest.mark.usefixtures("notes")
async def test_a_pooler_that_dies_fails_no_read_and_only_the_transactions_in_flight(
    services: Services, bouncer: PgBouncer
) -> None:
    async with Database(settings(services, bouncer)) as database, Load(database) as load:
        for _ in range(3):
            await asyncio.to_thread(bouncer.die)
            await asyncio.to_thread(bouncer.start)
            await load.everybody_is_served()

        assert load.failed_reads == []
        assert load.failed_writes.keys() <= {"Unavailable"}
        assert load.failed_writes.total() <= 3 * Load.WRITERS
        assert await load.lost_writes() == set()


class Load:
    """Clients that read, and clients that write, one request after the other."""

    READERS = 24
    WRITERS = 12

    def __init__(self, database: Database) -> None:
        self._database = database
        self._served = [0] * (self.READERS + self.WRITERS)
        self._is_over = False
        self.written: set[int] = set()
        self.failed_reads: list[str] = []
        self.failed_writes: Counter[str] = Counter()

    async def everybody_is_served(self, times: int = 5) -> None:
        goal = [served + times for served in self._served]
        for _ in range(1000):
            if all(served >= due for served, due in zip(self._served, goal, strict=True)):
                return
            await asyncio.sleep(0.05)
        raise AssertionError("somebody waits for ever")

    async def read(self, client: int) -> None:
        while not self._is_over:
            value = self._served[client] * 100 + client
            try:
                rows = await self._database.reader().fetch("SELECT $1::bigint", value)
                assert rows == [(value,)]
            except Exception as error:  # every kind is told, none is hidden
                self.failed_reads.append(repr(error))
            self._served[client] += 1

    async def write(self, client: int) -> None:
        while not self._is_over:
            note = {"id": self._served[client] * 100 + client}
            try:
                async with self._database.transaction() as session:
                    await session.execute(text("INSERT INTO notes VALUES (:id, '')"), note)
                    await session.execute(text("SELECT pg_sleep(0.005)"))
                    await session.execute(text("UPDATE notes SET body = 'b' WHERE id = :id"), note)
                self.written.add(note["id"])
            except Exception as error:  # every kind is told, none is hidden
                is_clean = isinstance(error, Unavailable)
                self.failed_writes["Unavailable" if is_clean else repr(error)] += 1
            self._served[client] += 1

    async def __aenter__(self) -> Self:
        self._clients = [asyncio.create_task(self.read(n)) for n in range(self.READERS)]
        writers = range(self.READERS, self.READERS + self.WRITERS)
        self._clients += [asyncio.create_task(self.write(n)) for n in writers]
        await self.everybody_is_served()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._clients)

    async def lost_writes(self) -> set[int]:
        written = set(self.written)  # before the read, because the clients go on writing
        found = await self._database.reader().fetch("SELECT id FROM notes WHERE body = 'b'")
        return written - {row["id"] for row in found}


def settings(services: Services, bouncer: PgBouncer, **changes: Any) -> DatabaseSettings:
    urls = {"url": bouncer.url, "read_url": bouncer.read_url, "direct_url": services.database_url}
    cache = {"statement_cache": 100 if pgbouncer.keeps_statements() else 0}
    return DatabaseSettings.model_validate({"pooled": True, **urls, **cache, **changes})


async def server_connections(services: Services) -> int:
    count = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    return int(await fetch_value(services.database_url, count))
