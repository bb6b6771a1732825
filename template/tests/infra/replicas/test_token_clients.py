# Rung's file: advancing to another stage may change it.
"""Clients that carry a token and echo nothing, on two copies, while the replica is behind."""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text

from app.infra.database import ReadSession, WriteSession
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from app.infra.sessions import CurrentUser, Sessions
from tests.infra.conftest import bare_app, browser
from tests.infra.replicas.replication import Server
from tests.infra.replicas.test_routing import until

pytestmark = pytest.mark.usefixtures("settings")

# How many writes, each followed by reads of its own.
ROUNDS = int(os.environ.get("ROUNDS", "160"))
CLIENTS = 16

new_ids = itertools.count(1_000_000)

PORT = "SELECT inet_server_port() AS port"


async def count(read: Reader, note: int) -> int:
    found = await read.fetch("SELECT count(*) AS found FROM notes WHERE id = $1", note)
    return int(found[0]["found"])


@max_stale(minutes=5)
async def count_of(read: Reader, note: int) -> int:
    return await count(read, note)


def app_with_notes() -> FastAPI:
    app = bare_app()

    @app.post("/tokens/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> str:
        return (await sessions.start(user_id, cookie=False)).token

    @app.post("/session/{user_id}")
    async def log_in_with_cookie(sessions: Sessions, user_id: UUID) -> None:
        await sessions.start(user_id)

    @app.delete("/session")
    async def log_out(sessions: Sessions) -> None:
        await sessions.end()

    @app.get("/me")
    async def me(user: CurrentUser) -> UUID:
        return user.id

    @app.post("/notes/{note}", status_code=201)
    async def write(write: WriteSession, user: CurrentUser, note: int) -> None:
        await write.execute(text("INSERT INTO notes VALUES (:note)"), {"note": note})
        count_of.invalidate(write, note)

    @app.get("/notes/{note}")
    async def read(read: ReadSession, note: int) -> int:
        return int(
            (await read.fetch("SELECT count(*) AS n FROM notes WHERE id = $1", note))[0]["n"]
        )

    @app.get("/old-notes/{note}")
    async def read_old(read: ReadSession, note: int) -> int:
        return await count_of(read, note)

    @app.get("/port")
    async def port(read: ReadSession) -> int:
        return int((await read.fetch(PORT))[0]["port"])

    return app


@dataclass
class Copies:
    """Two copies of the app. Each request of a caller goes to the next one."""

    clients: list[AsyncClient]

    def __post_init__(self) -> None:
        self._next = itertools.cycle(self.clients)

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None
    ) -> tuple[int, object]:
        client = next(self._next)
        answer = await client.request(method, path, headers=headers)
        client.cookies.clear()
        return answer.status_code, answer.json() if answer.content else None

    async def token(self, user: UUID) -> dict[str, str]:
        status, token = await self.ask("POST", f"/tokens/{user}")
        assert status == 200
        return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def serving(*apps: FastAPI) -> AsyncGenerator[Copies]:
    async with AsyncExitStack() as stack:
        clients = []
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
            clients.append(await stack.enter_async_context(browser(app)))
        yield Copies(clients)


@pytest.fixture
async def behind(replica: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Server]:
    """A replica that replays each commit two seconds late."""
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    await replica.run("ALTER SYSTEM SET recovery_min_apply_delay = '2s'")
    await replica.run("SELECT pg_reload_conf()")
    yield replica
    await replica.run("ALTER SYSTEM RESET recovery_min_apply_delay")
    await replica.run("SELECT pg_reload_conf()")


async def until_replica_serves(copies: Copies, replica: Server) -> None:
    for client in copies.clients:
        await until(partial(reads_from, client, replica))


async def reads_from(client: AsyncClient, server: Server) -> bool:
    return bool((await client.get("/port")).json() == server.port)


async def test_a_token_client_that_echoes_nothing_sees_its_writes_on_every_copy(
    behind: Server,
) -> None:
    stale: list[str] = []
    refused: list[object] = []

    async def rounds(copies: Copies, number: int) -> None:
        token = await copies.token(uuid4())
        for _ in range(number):
            note = next(new_ids)
            for method, path, wanted in (
                ("GET", f"/old-notes/{note}", 0),
                ("POST", f"/notes/{note}", None),
                ("GET", f"/notes/{note}", 1),
                ("GET", f"/old-notes/{note}", 1),
            ):
                status, found = await copies.ask(method, path, token)
                if status not in {200, 201}:
                    refused.append((status, path))
                elif found != wanted:
                    stale.append(path)
        await copies.ask("DELETE", "/session", token)
        for _ in copies.clients:
            status, _ = await copies.ask("GET", "/me", token)
            if status != 401:
                refused.append((status, "after logout"))

    async with serving(app_with_notes(), app_with_notes()) as copies:
        await until_replica_serves(copies, behind)
        await asyncio.gather(*(rounds(copies, ROUNDS // CLIENTS) for _ in range(CLIENTS)))

    assert (stale, refused) == ([], [])


async def test_a_fresh_login_is_known_to_every_copy_at_once(behind: Server) -> None:
    user = uuid4()
    async with serving(app_with_notes(), app_with_notes()) as copies:
        await until_replica_serves(copies, behind)
        token = await copies.token(user)

        for _ in copies.clients:
            assert await copies.ask("GET", "/me", token) == (200, str(user))


async def test_others_go_on_reading_from_the_replica(behind: Server) -> None:
    async with serving(app_with_notes()) as copies:
        await until_replica_serves(copies, behind)
        token = await copies.token(uuid4())
        await copies.ask("POST", f"/notes/{next(new_ids)}", token)

        assert await copies.ask("GET", "/port", token) != (200, behind.port)
        assert await copies.ask("GET", "/port") == (200, behind.port)


async def test_a_token_client_reads_from_the_replica_once_it_has_replayed_its_writes(
    replica: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    async with serving(app_with_notes()) as copies:
        await until_replica_serves(copies, replica)
        token = await copies.token(uuid4())
        await copies.ask("POST", f"/notes/{next(new_ids)}", token)

        async def reads_from_replica() -> bool:
            return await copies.ask("GET", "/port", token) == (200, replica.port)

        await until(reads_from_replica)


async def test_a_session_costs_a_token_client_one_lookup_and_a_browser_none(
    replica: Server, primary: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    lookups = """SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
        WHERE query LIKE 'SELECT login_sessions.user_id%'"""
    await primary.run("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    app = app_with_notes()
    async with serving(app) as copies, browser(app) as laptop:
        await until_replica_serves(copies, replica)
        token = await copies.token(uuid4())
        await laptop.post(f"/session/{uuid4()}")
        # A minute later only the cookies that live long are left.
        for name in [name for name in laptop.cookies if name.startswith("__Host-wrote-")]:
            laptop.cookies.delete(name)

        async def replica_knows() -> bool:
            return await replica.said_yes("EXISTS (SELECT FROM login_sessions)")

        await until(replica_knows)
        before = int(str(await primary.run(lookups)))
        for _ in range(10):
            assert (await laptop.get("/me")).status_code == 200
        assert int(str(await primary.run(lookups))) == before

        for _ in range(10):
            assert (await copies.ask("GET", "/me", token))[0] == 200
        assert int(str(await primary.run(lookups))) == before + 10


async def test_a_copy_that_does_not_read_from_replicas_yet_notes_positions(
    behind: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_REPLICA_READS", "false")
    first = app_with_notes()
    monkeypatch.setenv("DATABASE_REPLICA_READS", "true")
    async with serving(first, app_with_notes()) as copies:
        await until_replica_serves(Copies(copies.clients[1:]), behind)
        assert (await copies.clients[0].get("/port")).json() != behind.port
        for _ in range(20):
            token = await copies.token(uuid4())  # at the first copy
            note = next(new_ids)
            assert (
                await copies.clients[0].post(f"/notes/{note}", headers=token)
            ).status_code == 201
            copies.clients[0].cookies.clear()
            read = await copies.clients[1].get(f"/notes/{note}", headers=token)
            assert read.json() == 1
            await copies.clients[0].delete("/session", headers=token)
            copies.clients[0].cookies.clear()
            ended = await copies.clients[1].get("/me", headers=token)
            assert ended.status_code == 401
            copies.clients[1].cookies.clear()
            await copies.ask("GET", "/port")  # so that the next token comes from the first copy


@pytest.mark.parametrize(
    "carried",
    [
        "1.x",
        "1." + "f" * 5000 + ".x",
        "." * 500,
        "1.2.3",
        "\x00",
        "ü",
        "1.1." + "0" * 64,
        "-1.-1.x",
    ],
)
async def test_a_position_that_we_did_not_sign_is_ignored(behind: Server, carried: str) -> None:
    async with serving(app_with_notes()) as copies:
        value = carried.encode()
        for headers in ({b"Read-After": value}, {b"Cookie": b"__Host-wrote-1=" + value}):
            assert (await copies.clients[0].get("/port", headers=headers)).status_code == 200
