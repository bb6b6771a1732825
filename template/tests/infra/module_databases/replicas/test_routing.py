# Rung's file: advancing to another stage may change it.
"""A module's own database with a streaming replica: each client sees its writes there."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated
from uuid import uuid4

import asyncpg
import pytest
from fastapi import Depends, FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.database import WriteSession
from app.infra.module_databases.sessions import module_sessions
from app.infra.own_writes.client import OwnWrites
from app.infra.reads import Reader
from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import bare_app, browser, until
from tests.infra.own_writes.silent_clients import add_logins
from tests.infra.replicas.replication import Server

parcels = module_sessions("parcels")
ParcelsRead = Annotated[Reader, Depends(parcels.read)]
ParcelsWrite = Annotated[AsyncSession, Depends(parcels.write, scope="function")]


def post_office() -> FastAPI:
    app = bare_app()
    add_logins(app)

    @app.post("/common")
    async def send_common(write: WriteSession, name: str) -> None:
        await send(write, name)

    @app.post("/parcels/{name}")
    async def send_parcel(write: ParcelsWrite, name: str) -> None:
        await send(write, name)

    @app.get("/parcels/{name}")
    async def was_sent(read: ParcelsRead, name: str) -> bool:
        return await read.fetch("SELECT FROM sent WHERE name = $1", name) != []

    @app.get("/reads-from")
    async def reads_from(read: ParcelsRead) -> str:
        [row] = await read.fetch("SELECT pg_is_in_recovery() AS replica")
        return "replica" if row["replica"] else "primary"

    return app


async def send(write: AsyncSession, name: str) -> None:
    await write.execute(text("INSERT INTO sent VALUES (:name)"), {"name": name})


@asynccontextmanager
async def copy_of(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    async with app.router.lifespan_context(app), browser(app) as client:
        yield client


@asynccontextmanager
async def running(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """A stranger without a session, once its reads come from the replica."""
    async with copy_of(app) as stranger:
        await until_read(stranger, "replica")
        yield stranger


async def until_read(client: AsyncClient, server: str, token: dict[str, str] | None = None) -> None:
    async with asyncio.timeout(300):
        while (await client.get("/reads-from", headers=token)).json() != server:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def token_of(client: AsyncClient) -> dict[str, str]:
    return {"Authorization": f"Bearer {(await client.post('/tokens')).json()}"}


@pytest.fixture
async def paused(replica: Server) -> AsyncGenerator[Server]:
    """Once the app reads from it, hold_back() stops its replay."""
    yield replica
    await replica.run("SELECT pg_wal_replay_resume()")


async def hold_back(replica: Server) -> None:
    await replica.run("SELECT pg_wal_replay_pause()")
    await replica.becomes("pg_get_wal_replay_pause_state() = 'paused'")


@pytest.mark.parametrize("store", ["postgres", "redis"])
async def test_a_token_that_sends_nothing_back_sees_its_write_and_others_may_read_older(
    paused: Server, monkeypatch: pytest.MonkeyPatch, store: str
) -> None:
    with valkey.running("sessions") as sessions:
        monkeypatch.setenv("SESSION_REDIS_URL", sessions.url)
        monkeypatch.setenv("SESSION_REDIS_SECONDS", "5")
        monkeypatch.setenv("SESSION_STORE", store)
        # For this long after a connection to Redis the primary answers, and a position is kept.
        monkeypatch.setattr(OwnWrites, "remembered", timedelta(seconds=10))
        monkeypatch.setattr("app.infra.cache.cache.stale_queries", [])  # they would raise it
        other_copy = post_office()
        async with running(post_office()) as stranger, running(other_copy) as other:
            token = await token_of(stranger)
            for copy in (stranger, other):
                await until_read(copy, "replica", token)
            await hold_back(paused)
            name = uuid4().hex
            sent = await stranger.post(f"/parcels/{name}", headers=token)
            assert sent.status_code == 200
            assert "set-cookie" not in sent.headers

            for copy in (stranger, other):
                assert (await copy.get(f"/parcels/{name}", headers=token)).json() is True
                assert (await copy.get(f"/parcels/{name}")).json() is False


async def test_a_browser_sees_its_write_also_after_a_write_elsewhere(paused: Server) -> None:
    app = post_office()
    async with running(app), browser(app) as ada:
        await ada.post("/session")
        await hold_back(paused)
        name = uuid4().hex
        await ada.post(f"/parcels/{name}")
        await ada.post("/common", params={"name": name})

        assert any(cookie.startswith("__Host-wrote-parcels-") for cookie in ada.cookies)
        assert (await ada.get(f"/parcels/{name}")).json() is True


async def test_a_client_that_echoes_the_header_sees_its_writes_in_both_databases(
    paused: Server,
) -> None:
    async with running(post_office()) as stranger:
        token = await token_of(stranger)
        await hold_back(paused)
        name = uuid4().hex
        sent = await stranger.post(f"/parcels/{name}", headers=token)
        echo = {"Read-After": sent.headers["Read-After"]}
        assert (await stranger.get(f"/parcels/{name}", headers=echo)).json() is True

        common = await stranger.post("/common", params={"name": name}, headers=token | echo)
        echo = {"Read-After": common.headers["Read-After"]}
        main, _, others = echo["Read-After"].partition(", ")
        assert ":" not in main
        assert others.startswith("parcels:")
        for headers in (echo, token | echo):
            assert (await stranger.get(f"/parcels/{name}", headers=headers)).json() is True


async def test_a_header_without_the_modules_position_is_not_complete(paused: Server) -> None:
    async with running(post_office()) as stranger:
        token = await token_of(stranger)
        written = await stranger.post("/common", params={"name": "first"}, headers=token)
        main = written.headers["Read-After"].partition(", ")[0]  # as a version before gives it
        await hold_back(paused)
        name = uuid4().hex
        await stranger.post(f"/parcels/{name}", headers=token)

        old = token | {"Read-After": main}
        assert (await stranger.get(f"/parcels/{name}", headers=old)).json() is True


async def test_copies_on_the_way_to_reading_from_replicas_lose_no_position(
    paused: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", paused.url)  # notes common positions everywhere
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    reading = post_office()
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_REPLICA_READS", "false")
    noting = post_office()
    monkeypatch.delenv("MODULE_PARCELS_DATABASE_REPLICA_READS")
    monkeypatch.delenv("MODULE_PARCELS_DATABASE_REPLICA_URLS")
    before = post_office()
    async with running(reading) as stranger, copy_of(noting) as second, copy_of(before) as first:
        token = await token_of(first)
        await hold_back(paused)
        name = uuid4().hex
        sent = await second.post(f"/parcels/{name}", headers=token)
        echo = {"Read-After": sent.headers["Read-After"]}
        passed_on = await first.post("/common", params={"name": name}, headers=echo)
        echo_again = {"Read-After": passed_on.headers["Read-After"]}

        for headers in (token, echo, echo_again):
            for copy in (stranger, second, first):
                assert (await copy.get(f"/parcels/{name}", headers=headers)).json() is True
        assert (await stranger.get(f"/parcels/{name}")).json() is False


async def test_a_new_session_of_a_client_sees_what_it_wrote_before(
    paused: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_WRITE_POOL", "1")  # the note must not wait for another connection
    async with running(post_office()) as stranger:
        first = await token_of(stranger)
        await hold_back(paused)
        name = uuid4().hex
        await stranger.post(f"/parcels/{name}", headers=first)
        answer = await stranger.post("/tokens", headers=first)
        second = {"Authorization": f"Bearer {answer.json()}"}

        assert (await stranger.get(f"/parcels/{name}", headers=second)).json() is True
    assert "another connection" not in capsys.readouterr().out


async def test_a_position_that_cannot_be_noted_at_once_is_noted_on_another_connection(
    paused: Server, services: Services, capsys: pytest.CaptureFixture[str]
) -> None:
    async with running(post_office()) as stranger:
        token = await token_of(stranger)
        await hold_back(paused)
        name = uuid4().hex
        holder = await asyncpg.connect(services.database_url)
        transaction = holder.transaction()
        await transaction.start()
        await holder.execute("SELECT FROM login_sessions FOR UPDATE")
        sending = asyncio.create_task(stranger.post(f"/parcels/{name}", headers=token))
        await until(lambda: "noted on another connection" in capsys.readouterr().out)
        await transaction.rollback()
        await holder.close()
        assert (await sending).status_code == 200

        assert (await stranger.get(f"/parcels/{name}", headers=token)).json() is True


async def test_a_write_of_a_copy_that_follows_a_move_is_seen_at_one_that_no_longer_does(
    paused: Server, primary: Server, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = (
        "CREATE FUNCTION move_parcels_fence() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {} END'"
    )
    old = await asyncpg.connect(services.database_url)
    await old.execute(fence.format("RAISE ''no writes'';"))
    await old.close()
    await primary.run(fence.format("RETURN NULL;"))
    later = post_office()
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_FOLLOW", "true")
    async with running(later) as stranger, copy_of(post_office()) as following:
        token = await token_of(following)
        await hold_back(paused)
        name = uuid4().hex
        await following.post(f"/parcels/{name}", headers=token)

        assert (await following.get("/reads-from")).json() == "primary"
        assert (await following.get(f"/parcels/{name}")).json() is True
        assert (await stranger.get(f"/parcels/{name}", headers=token)).json() is True
        assert (await stranger.get(f"/parcels/{name}")).json() is False
    await primary.run("DROP FUNCTION move_parcels_fence")


async def test_the_replica_of_a_module_is_among_the_pools_and_metrics(replica: Server) -> None:
    app = post_office()
    async with running(app):
        address = f"127.0.0.1:{replica.port}/postgres"
        assert f"parcels reads from {address}" in app.state.pools()
        reads = next(one for one in app.state.instruments if one.name == "db.replica.reads")
        [(count, named)] = reads.read()
        assert (count > 0, named) == (True, {"server.address": address, "module": "parcels"})


async def test_a_killed_replica_leaves_its_reads_to_the_primary(
    replica: Server, primary: Server
) -> None:
    async with running(post_office()) as stranger:
        replica.signal(signal.SIGKILL)
        for _ in range(20):
            assert (await stranger.get("/reads-from")).status_code == 200
        await until_read(stranger, "primary")
        assert (await stranger.get("/ready")).status_code == 200


async def test_a_promoted_replica_gets_no_reads(replica: Server, primary: Server) -> None:
    async with running(post_office()) as stranger:
        token = await token_of(stranger)
        await replica.run("SELECT pg_promote()")
        name = uuid4().hex
        await stranger.post(f"/parcels/{name}", headers=token)
        assert (await stranger.get(f"/parcels/{name}", headers=token)).json() is True
        async with asyncio.timeout(300):
            while not (await stranger.get(f"/parcels/{name}")).json():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
