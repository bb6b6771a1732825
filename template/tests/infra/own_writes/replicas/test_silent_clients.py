# Rung's file: advancing to another stage may change it.
"""A client with a token sees its own writes, with a replica 5 s behind and two copies."""

import asyncio

import asyncpg
import pytest

from app.infra.session_tokens import COOKIE
from tests.infra.conftest import browser, until
from tests.infra.own_writes.replicas.pair import calls, caught_up, until_replica_is_read
from tests.infra.own_writes.silent_clients import (
    copies_of,
    diary_app,
    logged_in,
    mistakes_of_many,
    new_ids,
    status_of,
)
from tests.infra.replicas.replication import Cluster, Server


@pytest.fixture
def primary(servers: Cluster) -> Server:
    return servers.primary


async def test_a_client_that_echoes_nothing_sees_its_writes_at_every_copy(replica: Server) -> None:
    async with copies_of(diary_app(), diary_app()) as copies:
        await until_replica_is_read(copies, replica)
        assert await mistakes_of_many(copies) == {}


@pytest.mark.slow
async def test_copies_that_do_not_read_from_replicas_yet_note_positions_already(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = diary_app()
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    async with copies_of(reading, diary_app()) as copies:
        await until_replica_is_read(copies[:1], replica)
        assert await mistakes_of_many(copies) == {}


async def test_a_copy_told_not_to_read_from_replicas_does_not(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    async with copies_of(diary_app()) as (copy,):
        before = await calls(replica, "diaries")
        token = await logged_in(copy)
        for _ in range(20):
            await copy.get("/diaries/0")
            assert await status_of(copy, token) == 200
        assert await calls(replica, "diaries") == before


async def test_a_token_costs_one_lookup_on_the_primary_and_its_reads_stay_on_the_replica(
    primary: Server, replica: Server
) -> None:
    app = diary_app()
    async with copies_of(app) as (copy,):
        await until_replica_is_read([copy], replica)
        token = await logged_in(copy)
        await caught_up(app, primary, replica)
        lookups, read = await calls(primary, "login_sessions"), await calls(replica, "diaries")
        for _ in range(10):
            assert (await copy.get("/own-diaries/0", headers=token)).status_code == 200

        assert await calls(primary, "login_sessions") - lookups == 10
        # Two reads a request; a busy machine may send some of them to the primary.
        assert await calls(replica, "diaries") - read >= 16


async def test_a_browser_costs_no_lookup_on_the_primary_also_long_after_its_last_write(
    primary: Server, replica: Server
) -> None:
    app = diary_app()
    async with copies_of(app) as (stranger,), browser(app) as ada:
        await until_replica_is_read([stranger], replica)
        await ada.post("/session")
        await caught_up(app, primary, replica)
        assert (await ada.get("/me")).status_code == 200
        lookups = await calls(primary, "login_sessions")
        assert (await ada.get("/me")).status_code == 200
        for cookie in [name for name in ada.cookies if name.startswith("__Host-wrote-")]:
            ada.cookies.delete(cookie)  # as after a minute
        assert (await ada.get("/me")).status_code == 200

        assert await calls(primary, "login_sessions") == lookups


async def test_a_client_that_echoes_the_header_costs_no_lookup_on_the_primary(
    primary: Server, replica: Server
) -> None:
    app = diary_app()
    async with copies_of(app) as (copy,):
        await until_replica_is_read([copy], replica)
        token = await logged_in(copy)
        written = await copy.put(f"/diaries/{next(new_ids)}", params={"page": 1}, headers=token)
        echoing = {**token, "Read-After": written.headers["Read-After"]}
        await caught_up(app, primary, replica)
        lookups = await calls(primary, "login_sessions")
        for _ in range(5):
            assert await status_of(copy, echoing) == 200

        assert await calls(primary, "login_sessions") == lookups


async def test_a_write_does_not_send_other_clients_to_the_primary(replica: Server) -> None:
    async with copies_of(diary_app()) as (copy,):
        await until_replica_is_read([copy], replica)
        token = await logged_in(copy)
        diary = f"/diaries/{next(new_ids)}"
        await copy.put(diary, params={"page": 1}, headers=token)

        assert (await copy.get(diary, headers=token)).json() == 1
        assert (await copy.get(diary)).json() is None  # the replica does not know it yet


async def test_a_browser_without_the_marker_gets_it_with_the_first_answer_that_it_would_have_saved(
    primary: Server, replica: Server
) -> None:
    app = diary_app()
    async with copies_of(app) as (stranger,), browser(app) as ada:
        await until_replica_is_read([stranger], replica)
        await ada.post("/session")
        for cookie in [name for name in ada.cookies if name != COOKIE]:
            ada.cookies.delete(cookie)  # as one that logged in before there was a marker
        await caught_up(app, primary, replica)
        assert (await ada.get("/me")).status_code == 200
        lookups = await calls(primary, "login_sessions")
        assert (await ada.get("/me")).status_code == 200

        assert await calls(primary, "login_sessions") == lookups


async def test_a_session_that_the_replica_does_not_know_is_looked_up_on_the_primary(
    replica: Server,
) -> None:
    app = diary_app()
    async with copies_of(app) as (stranger,), browser(app) as ada:
        await until_replica_is_read([stranger], replica)
        await ada.post("/session")
        await ada.get("/me")  # its answer has the marker
        for cookie in [name for name in ada.cookies if name.startswith("__Host-wrote-")]:
            ada.cookies.delete(cookie)

        assert (await ada.get("/me")).status_code == 200


@pytest.mark.usefixtures("replica")
async def test_a_position_that_cannot_be_noted_at_once_is_noted_on_another_connection(
    primary: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    async with copies_of(diary_app()) as (copy,):
        token = await logged_in(copy)
        await primary.run("UPDATE login_sessions SET positions = '{}'")
        holder = await asyncpg.connect(primary.url)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM login_sessions FOR UPDATE")
        writing = asyncio.create_task(
            copy.put(f"/diaries/{next(new_ids)}", params={"page": 1}, headers=token)
        )
        await until(lambda: "noted on another connection" in capsys.readouterr().out)
        await transaction.rollback()
        assert (await writing).status_code == 200
        await holder.close()

        assert await primary.said_yes(
            "EXISTS (SELECT FROM login_sessions WHERE positions ? 'main')"
        )
