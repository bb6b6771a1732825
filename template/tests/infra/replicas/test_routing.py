# Rung's file: advancing to another stage may change it.
"""Reads against a real streaming pair: held back, stopped, killed, silenced, and promoted."""

import asyncio
import itertools
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from fastapi import BackgroundTasks, FastAPI, WebSocket
from httpx import AsyncClient
from pydantic import BaseModel, PostgresDsn
from sqlalchemy import text

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database, ReadSession, WriteSession
from app.infra.environment import EnvironmentIncomplete
from app.infra.freshness import max_stale
from app.infra.own_writes.client import Client, this_client
from app.infra.own_writes.log_position import MAIN, Position
from app.infra.own_writes.signed_positions import Carried
from app.infra.reads import Reader
from app.infra.replicas.replicas import Replicas, ReplicaSettings
from dev.pytest_plugin import RUN
from tests.infra.conftest import Serve, bare_app, browser, until
from tests.infra.replicas.conftest import create_tables
from tests.infra.replicas.replication import Cluster, Server, cluster
from tests.infra.test_websockets import opened

pytestmark = pytest.mark.usefixtures("settings")

# How many writes, each followed by its own read.
ROUNDS = int(os.environ.get("ROUNDS", "400"))
CLIENTS = 16
CLIENT_NAMES = [f"client-{number}" for number in range(CLIENTS)]

LOOK = """SELECT count(*) AS found, pg_is_in_recovery() AS on_replica, inet_server_port() AS port
    FROM notes WHERE id = $1"""

new_ids = itertools.count(1)


class Look(BaseModel):
    found: int
    on_replica: bool
    port: int


async def look(read: Reader, note: int) -> Look:
    return Look.model_validate(dict((await read.fetch(LOOK, note))[0]))


@max_stale(minutes=5)
async def look_back(read: Reader, note: int) -> Look:
    return await look(read, note)


@pytest.fixture
def notes(replica: Server, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """An app that keeps notes, and reads them from the replica."""
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    return notes_app()


def notes_app() -> FastAPI:
    app = bare_app()

    @app.post("/notes/{note}", status_code=201)
    async def write(write: WriteSession, note: int) -> None:
        await write.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})

    @app.get("/notes/{note}")
    async def read(read: ReadSession, note: int) -> Look:
        return await look(read, note)

    @app.get("/old-notes/{note}")
    async def read_old(read: ReadSession, note: int) -> Look:
        return await look_back(read, note)

    return app


async def test_a_websocket_reads_the_primary(notes: FastAPI, serve: Serve) -> None:
    @notes.websocket("/live")
    async def live(websocket: WebSocket, read: ReadSession) -> None:
        await websocket.accept()
        await websocket.send_text((await look(read, 0)).model_dump_json())

    async with in_rotation(notes, serve):
        _, said = await opened(notes, "/live", {})
    assert not Look.model_validate_json(said["text"]).on_replica


@asynccontextmanager
async def in_rotation(app: FastAPI, serve: Serve) -> AsyncGenerator[AsyncClient]:
    """Yields a client that has written nothing, when reads go to the replica."""
    async with serve(app) as client:
        await until(lambda: reads_from_replica(client))
        yield client


async def got(client: AsyncClient, path: str, headers: dict[str, str] | None = None) -> Look:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    return Look.model_validate(answer.json())


async def reads_from_replica(client: AsyncClient, path: str = "/notes/0") -> bool:
    return (await got(client, path)).on_replica


async def reads_from_primary(client: AsyncClient) -> bool:
    return not await reads_from_replica(client)


async def written(client: AsyncClient) -> str:
    """The path of a new note."""
    path = f"/notes/{next(new_ids)}"
    assert (await client.post(path)).status_code == 201
    return path


async def ports_read(app: FastAPI, clients: Sequence[str] = CLIENT_NAMES) -> set[int]:
    """The ports of the servers that answered these clients."""
    async with browser(app) as browsers:
        return {
            (await got(browsers, "/notes/0", {"cookie": f"__Host-session={client}"})).port
            for client in clients
        }


async def test_a_client_that_wrote_sees_it_at_once(notes: FastAPI, serve: Serve) -> None:
    async def write_and_read(rounds: int) -> list[Look]:
        async with browser(notes) as client:
            return [await got(client, await written(client)) for _ in range(rounds)]

    async with in_rotation(notes, serve):
        looks = await asyncio.gather(*(write_and_read(ROUNDS // CLIENTS) for _ in range(CLIENTS)))

    found = [look.found for of_one in looks for look in of_one]
    assert found == [1] * (ROUNDS // CLIENTS * CLIENTS)


async def test_a_position_taken_before_the_commit_would_be_reached_too_soon(
    notes: FastAPI, serve: Serve, primary: Server, replica: Server
) -> None:
    """A replica that has reached the position from before the commit may still lack the note."""
    note = next(new_ids)
    async with in_rotation(notes, serve):
        async with notes.state.database.transaction() as write:
            await write.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})
            before = await write.scalar(text("SELECT pg_current_wal_insert_lsn()::text"))
            await primary.run("SELECT pg_log_standby_snapshot()")  # writes one more WAL entry
            await until(lambda: replica.said_yes(f"pg_last_wal_replay_lsn() >= '{before}'"))
            assert await replica.said_yes(f"NOT EXISTS (SELECT FROM notes WHERE id = {note})")

        noted = this_client().main.position
        assert noted
        assert await primary.said_yes(f"'{before}'::pg_lsn - '0/0' < {noted.lsn}")


async def test_a_background_task_sees_what_its_request_has_written(
    notes: FastAPI, serve: Serve, replica: Server
) -> None:
    seen: list[Look] = []

    @notes.post("/later")
    async def later(write: WriteSession, read: ReadSession, tasks: BackgroundTasks) -> None:
        async def see() -> None:
            seen.append(await look(read, note))

        await write.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})
        tasks.add_task(see)

    note = next(new_ids)
    async with in_rotation(notes, serve) as client:
        await replica.run("SELECT pg_wal_replay_pause()")
        await client.post("/later")

    assert [look.found for look in seen] == [1]


async def test_the_position_travels_in_a_header_for_clients_without_cookies(
    notes: FastAPI, serve: Serve, replica: Server
) -> None:
    async with in_rotation(notes, serve) as client:
        await replica.run("SELECT pg_wal_replay_pause()")
        answer = await client.post(path := f"/notes/{next(new_ids)}")
        client.cookies.clear()
        assert (await got(client, path)).found == 0

        client.headers["Read-After"] = answer.headers["Read-After"]
        assert (await got(client, path)).found == 1


async def test_of_several_tabs_the_greatest_position_counts_in_whatever_order_they_answer(
    notes: FastAPI, serve: Serve, replica: Server
) -> None:
    async with in_rotation(notes, serve) as reader, browser(notes) as one, browser(notes) as other:
        first = await written(one)
        await until(lambda: replica.said_yes(f"EXISTS (SELECT FROM notes WHERE id = {first[7:]})"))
        await replica.run("SELECT pg_wal_replay_pause()")
        last = await written(other)
        reader.cookies.update(other.cookies)
        reader.cookies.update(one.cookies)  # the first write's answer comes last

        assert (await got(reader, last)).found == 1
        assert (await got(reader, first)).found == 1
        assert len(reader.cookies) == 2
        await written(reader)
        assert len(reader.cookies) == 1


@pytest.mark.parametrize("forged", ["ffff.ffffffffffff." + "0" * 64, "1.2", "x.y.z", "1..é"])
async def test_a_position_that_we_did_not_sign_is_ignored(
    notes: FastAPI, serve: Serve, forged: str
) -> None:
    async with in_rotation(notes, serve) as client:
        client.headers.update([(b"Read-After", forged.encode())])
        assert await reads_from_replica(client)


async def test_while_the_replica_stands_still_only_the_writer_reads_from_the_primary(
    notes: FastAPI, serve: Serve, replica: Server
) -> None:
    async with in_rotation(notes, serve) as other, browser(notes) as writer:
        await replica.run("SELECT pg_wal_replay_pause()")
        path = await written(writer)

        own, others = await got(writer, path), await got(other, path)
        assert (own.found, own.on_replica) == (1, False)
        assert (others.found, others.on_replica) == (0, True)


@pytest.mark.parametrize(
    ("limit", "value"),
    [("DATABASE_REPLICA_MAX_LAG_SECONDS", "0.3"), ("DATABASE_REPLICA_MAX_LAG_BYTES", "1kB")],
)
async def test_a_replica_too_far_behind_is_left_out_until_it_has_caught_up(
    notes: FastAPI,
    serve: Serve,
    primary: Server,
    replica: Server,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: str,
) -> None:
    monkeypatch.setenv(limit, value)
    async with in_rotation(notes_app(), serve) as client:
        await replica.run("SELECT pg_wal_replay_pause()")
        await primary.run("SELECT pg_logical_emit_message(true, 'rung', repeat('x', 2000))")

        await until(lambda: reads_from_primary(client))
        await replica.run("SELECT pg_wal_replay_resume()")
        await until(lambda: reads_from_replica(client))


async def test_a_process_that_starts_knows_how_long_a_replica_has_been_behind(
    primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "2")
    a_commit = "SELECT pg_logical_emit_message(true, 'rung', 'x')"
    await primary.run(a_commit)
    await replica.becomes("pg_last_xact_replay_timestamp() IS NOT NULL")
    await replica.run("SELECT pg_wal_replay_pause()")
    await primary.run(a_commit)
    await replica.becomes("clock_timestamp() - pg_last_xact_replay_timestamp() > interval '3 s'")
    settings = environment.read(DatabaseSettings), environment.read(ReplicaSettings)
    async with Replicas(*settings) as watched:
        [seen] = watched.replicas

        async def is_known() -> bool:
            return seen.is_in_rotation is not None

        await until(is_known)
        assert not seen.is_in_rotation
        assert seen.seconds_behind > 3


@pytest.mark.slow
async def test_while_the_primary_is_idle_the_replica_is_not_behind(
    notes: FastAPI, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "0.1")
    async with in_rotation(notes_app(), serve) as client:
        await asyncio.sleep(0.4)
        assert await reads_from_replica(client)


@pytest.mark.slow
async def test_unflushed_entries_of_the_primary_do_not_count_as_lag(
    notes: FastAPI, serve: Serve, primary: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "0.1")

    async def a_read_has_failed() -> bool:
        """Leaves entries in the WAL that nobody flushes."""
        await primary.run("UPDATE notes SET id = id")
        await primary.run("CHECKPOINT")
        with pytest.raises(asyncpg.DivisionByZeroError):
            await primary.run("SELECT 1 / (count(*) - count(*)) FROM notes")
        return await primary.said_yes("pg_current_wal_insert_lsn() > pg_current_wal_flush_lsn()")

    async with in_rotation(notes_app(), serve) as client:
        await written(client)
        await until(a_read_has_failed)
        await asyncio.sleep(0.4)
        assert await reads_from_replica(client)


async def test_a_stale_read_may_use_a_replica_further_behind_but_not_for_the_writer(
    notes: FastAPI, serve: Serve, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "0.1")
    app = notes_app()
    async with in_rotation(app, serve) as other, browser(app) as writer:
        await replica.run("SELECT pg_wal_replay_pause()")
        path = await written(writer)
        await until(lambda: reads_from_primary(other))

        assert (await got(other, f"/old-{path[1:]}")).on_replica
        assert (await got(writer, f"/old-{path[1:]}")).found == 1


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL, signal.SIGSTOP])
async def test_no_read_fails_when_the_replica_goes_and_it_is_read_again_when_it_is_back(
    notes: FastAPI,
    serve: Serve,
    servers: Cluster,
    replica: Server,
    monkeypatch: pytest.MonkeyPatch,
    end: signal.Signals,
) -> None:
    monkeypatch.setattr("app.infra.replicas.replicas.SILENCE_SECONDS", 1)
    goes_on = True
    statuses: list[list[int]] = [[] for _ in range(8)]

    async def keep_reading(statuses: list[int]) -> None:
        async with browser(notes) as client:
            while goes_on:
                statuses.append((await client.get("/notes/0")).status_code)

    async def everybody_read_more() -> bool:
        return all(len(of_one) > count for of_one, count in zip(statuses, counts, strict=True))

    async with in_rotation(notes, serve) as client, asyncio.TaskGroup() as tasks:
        for of_one in statuses:
            tasks.create_task(keep_reading(of_one))
        await asyncio.sleep(0.2)
        replica.signal(end)
        try:
            await until(lambda: reads_from_primary(client))
            counts = [len(of_one) for of_one in statuses]
            await until(everybody_read_more)
        finally:
            if end == signal.SIGSTOP:
                replica.signal(signal.SIGCONT)
        await asyncio.to_thread(servers.replica)
        await until(lambda: reads_from_replica(client))
        goes_on = False

    assert sum(map(len, statuses)) > 16
    assert {status for of_one in statuses for status in of_one} == {200}


async def test_a_read_that_replay_cancels_is_answered_by_the_primary(
    notes: FastAPI, serve: Serve, primary: Server, replica: Server
) -> None:
    slow_there = """SELECT pg_is_in_recovery() FROM notes,
        pg_sleep(CASE WHEN pg_is_in_recovery() THEN 8 ELSE 0 END) LIMIT 1"""
    async with in_rotation(notes, serve) as client:
        await written(client)
        await until(lambda: replica.said_yes("EXISTS (SELECT FROM notes)"))
        reading = asyncio.create_task(notes.state.database.reader().fetch(slow_there))
        await replica.becomes("EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep')")
        await primary.run("DELETE FROM notes")
        await primary.run("VACUUM notes")
        await written(client)

        assert (await reading)[0][0] is False
    conflicts = "(SELECT sum(confl_snapshot + confl_lock) > 0 FROM pg_stat_database_conflicts)"
    await until(lambda: replica.said_yes(conflicts))


MIGRATIONS = {
    "CREATE TABLE arriving (id int)": "SELECT count(*) FROM arriving",
    "CREATE FUNCTION arriving() RETURNS int RETURN 0": "SELECT arriving()",
    "CREATE TYPE arriving_type AS ENUM ('no')": "SELECT count('no'::arriving_type) - 1",
    "CREATE SCHEMA elsewhere CREATE TABLE new (id int)": "SELECT count(*) FROM elsewhere.new",
    "ALTER TYPE mood ADD VALUE 'hopeful'": "SELECT count('hopeful'::mood) - 1",
}


async def test_a_migration_that_has_not_arrived_yet_is_read_from_the_primary(
    notes: FastAPI, serve: Serve, primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "600")
    app = notes_app()
    await primary.run("CREATE TYPE mood AS ENUM ('sad')")
    async with in_rotation(app, serve) as client:
        await replica.becomes("EXISTS (SELECT FROM pg_type WHERE typname = 'mood')")
        await replica.run("SELECT pg_wal_replay_pause()")
        await replica.becomes("pg_get_wal_replay_pause_state() = 'paused'")
        try:
            for migration in MIGRATIONS:
                await primary.run(migration)
            [there] = app.state.database.replicas
            for asked, query in enumerate(MIGRATIONS.values(), start=there.reads + 1):
                [row] = await app.state.database.reader().fetch(query)
                assert (row[0], there.reads) == (0, asked)
            assert await reads_from_replica(client)
        finally:
            for named in ("TABLE arriving", "FUNCTION arriving", "TYPE arriving_type, mood"):
                await primary.run(f"DROP {named}")
            await primary.run("DROP SCHEMA elsewhere CASCADE")


FAILS_HERE = """
    CREATE OR REPLACE FUNCTION fails_here(code text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        IF pg_is_in_recovery() THEN RAISE 'it fails here' USING ERRCODE = code; END IF;
        RETURN 'found';
    END $$
"""


# Its disk is full or broken, it has no memory, or no right has arrived.
@pytest.mark.parametrize("code", ["53100", "58030", "53200", "42501"])
async def test_a_read_that_only_the_replica_refuses_is_answered_by_the_primary(
    notes: FastAPI, serve: Serve, primary: Server, replica: Server, code: str
) -> None:
    await primary.run(FAILS_HERE)
    await replica.becomes("EXISTS (SELECT FROM pg_proc WHERE proname = 'fails_here')")
    async with in_rotation(notes, serve):
        [there] = notes.state.database.replicas
        before = there.reads
        [row] = await notes.state.database.reader().fetch("SELECT fails_here($1)", code)
        assert (row[0], there.reads) == ("found", before + 1)


async def test_a_write_is_refused_by_the_replica_and_by_the_primary(
    notes: FastAPI, serve: Serve, replica: Server
) -> None:
    async with in_rotation(notes, serve) as client:
        read = notes.state.database.reader()
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await read.fetch("DELETE FROM notes")

        await replica.run("SELECT pg_wal_replay_pause()")
        await written(client)
        async with notes.state.database.transaction() as write:
            await write.execute(text("SELECT 1"))
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await read.fetch("DELETE FROM notes")


async def test_a_commit_whose_position_stays_unknown_is_still_seen_by_its_client(
    serve: Serve, primary: Server, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    await primary.run("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
    await primary.run("GRANT ALL ON notes TO clerk")
    monkeypatch.setenv("DATABASE_URL", primary.url_as("clerk"))
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    app = notes_app()
    async with in_rotation(app, serve), browser(app) as writer:
        await primary.run("REVOKE EXECUTE ON FUNCTION pg_current_wal_insert_lsn() FROM public")
        path = await written(writer)
        own = await got(writer, path)
        await primary.run("GRANT EXECUTE ON FUNCTION pg_current_wal_insert_lsn() TO public")

    assert (own.found, own.on_replica) == (1, False)


@pytest.mark.slow
async def test_of_two_replicas_each_client_stays_with_one_and_the_other_takes_over(
    notes: FastAPI, serve: Serve, servers: Cluster, replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = await asyncio.to_thread(servers.replica, "second")
    monkeypatch.setenv("DATABASE_REPLICA_URLS", f"{replica.url},{second.url}")
    app = notes_app()

    async def both_are_read() -> bool:
        return await ports_read(app) == {replica.port, second.port}

    async def only_the_first_is_read() -> bool:
        return await ports_read(app) == {replica.port}

    async with in_rotation(app, serve):
        await until(both_are_read)
        for name in CLIENT_NAMES:
            assert len(await ports_read(app, [name] * 3)) == 1

        second.signal(signal.SIGKILL)  # its child processes get the signal a moment later
        await until(only_the_first_is_read)
        await until(second.has_no_shared_memory)


@pytest.mark.slow
async def test_after_a_failover_old_positions_do_not_send_reads_to_the_primary(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start() -> Iterator[Cluster]:
        with cluster(f"rung-failover-{RUN}") as servers:
            yield servers

    starting = start()
    servers = await asyncio.to_thread(next, starting)
    try:
        await create_tables(servers.primary)
        heir = await asyncio.to_thread(servers.replica, "heir")
        follower = await asyncio.to_thread(servers.replica, "follower", heir)
        stray = await asyncio.to_thread(servers.replica, "stray")
        monkeypatch.setenv("DATABASE_URL", servers.primary.url)
        monkeypatch.setenv("DATABASE_REPLICA_URLS", heir.url)
        async with in_rotation(old := notes_app(), serve) as client, browser(old) as writer:
            await heir.run("SELECT pg_promote()")
            await until(lambda: reads_from_primary(client))  # it is promoted
            await servers.primary.run("SELECT pg_switch_wal()")
            await written(writer)  # the promoted server will never get this

            monkeypatch.setenv("DATABASE_URL", heir.url)
            monkeypatch.setenv("DATABASE_REPLICA_URLS", f"{follower.url},{stray.url}")
            async with in_rotation(new := notes_app(), serve), browser(new) as returning:
                returning.cookies.update(writer.cookies)
                assert await reads_from_replica(returning)
                new_note = await written(returning)
                assert (await got(returning, new_note)).found == 1
                # This replica follows another timeline, and has more WAL than the new primary.
                assert stray.port not in await ports_read(new)
    finally:
        await asyncio.to_thread(next, starting, None)


async def test_on_a_new_timeline_the_old_position_of_a_replica_proves_nothing() -> None:
    settings = ReplicaSettings(urls=[PostgresDsn("postgresql://replica/app")])
    replicas = Replicas(environment.read(DatabaseSettings), settings)
    (replica,) = replicas.replicas
    replicas.see_primary(Position(1, 9000))
    replica.note_replayed(9000)
    replica.seconds_behind, replica.is_in_rotation = 0.0, True
    assert await replicas.choose(Client(), None, besides=None) is replica

    replicas.see_primary(Position(2, 100))  # for example a server of the next major version
    writer = Client(carried=Carried({MAIN: Position(2, 500)}))
    for allowed in (None, timedelta(minutes=5)):
        assert await replicas.choose(writer, allowed, besides=None) is None
        assert await replicas.choose(Client(), allowed, besides=None) is None


async def test_two_replicas_behind_one_pooler_share_the_clients() -> None:
    urls = [PostgresDsn(f"postgresql://pooler:6432/app_replica_{number}") for number in (1, 2)]
    replicas = Replicas(environment.read(DatabaseSettings), ReplicaSettings(urls=urls))
    for replica in replicas.replicas:
        replica.is_in_rotation = True

    clients = [Client(affinity=name) for name in CLIENT_NAMES]
    chosen = [await replicas.choose(client, None, besides=None) for client in clients]

    assert {one.name for one in chosen if one} == {
        "pooler:6432/app_replica_1",
        "pooler:6432/app_replica_2",
    }


async def test_without_a_replica_the_primary_answers_and_no_position_is_sent(serve: Serve) -> None:
    app = notes_app()
    assert type(app.state.database) is Database
    async with serve(app) as client:
        answer = await client.post(f"/notes/{next(new_ids)}")
        assert "read-after" not in answer.headers
        assert await reads_from_primary(client)


async def test_a_server_that_is_away_or_refuses_us_or_is_no_replica_is_left_out(
    serve: Serve,
    primary: Server,
    replica: Server,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nobody = "postgresql://app:wrong@127.0.0.1:1/postgres"
    urls = [nobody, replica.url_as("stranger"), primary.url, replica.url]
    monkeypatch.setenv("DATABASE_REPLICA_URLS", ",".join(urls))
    log: list[str] = []

    def three_are_left_out() -> bool:
        log.append(capsys.readouterr().out)
        return "".join(log).count("a replica is out of rotation") == 3

    async with in_rotation(notes_app(), serve) as client:
        await until(three_are_left_out)
        assert await reads_from_replica(client)

    refused = "it does not answer: Postgres: no connection could be opened: password auth"
    assert refused in "".join(log)


def test_a_replica_with_a_wrong_address_stops_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", "postgresql://replica/app,mysql://replica/app")
    with pytest.raises(EnvironmentIncomplete, match="  DATABASE_REPLICA_URLS: item 2: "):
        notes_app()
