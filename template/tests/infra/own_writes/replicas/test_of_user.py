# Rung's file: advancing to another stage may change it.
"""The row of the logged-in user shows the client's own writes, with a replica 5 s behind."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import Depends, FastAPI
from httpx import AsyncClient
from sqlalchemy import bindparam, func, select

from app.infra.database import ReadSession, WriteSession
from app.infra.database_use import this_request
from app.infra.reads import Query
from app.infra.session_rows import LoginSession
from app.infra.sessions import CurrentUser, of_user
from tests.infra.conftest import browser
from tests.infra.own_writes.replicas.pair import calls, caught_up, until_replica_is_read
from tests.infra.own_writes.silent_clients import copies_of, diary_app, logged_in, new_ids
from tests.infra.replicas.replication import Cluster, Server

DEVICES = Query(
    select(func.count().label("devices"))
    .select_from(LoginSession)
    .where(LoginSession.user_id == bindparam("user_id")),
    dict,
)
Devices = Annotated[dict[str, int], Depends(of_user(DEVICES))]


def device_app() -> FastAPI:
    app = diary_app()

    @app.post("/devices")
    async def add(write: WriteSession, user: CurrentUser) -> None:
        day = datetime.now(UTC) + timedelta(days=1)
        token_hash = secrets.token_bytes(32)
        write.add(LoginSession(token_hash=token_hash, user_id=user.id, expires_at=day))

    @app.get("/devices")
    async def devices(found: Devices) -> tuple[int, int]:
        return found["devices"], this_request.get().calls

    @app.get("/devices-and-diary")
    async def both(found: Devices, read: ReadSession) -> tuple[int, int]:
        await read.fetch("SELECT page FROM diaries")
        return found["devices"], this_request.get().calls

    return app


async def seen(client: AsyncClient, path: str, token: dict[str, str]) -> list[int]:
    """The number of devices, and of statements."""
    found: list[int] = (await client.get(path, headers=token)).json()
    return found


async def test_a_client_that_echoes_nothing_sees_its_writes_at_every_copy(replica: Server) -> None:
    async with copies_of(device_app(), device_app()) as copies:
        await until_replica_is_read(copies, replica)
        token = await logged_in(copies[0])
        for devices in range(1, 5):
            one, other = copies[devices % 2], copies[1 - devices % 2]
            assert await seen(one, "/devices", token) == [devices, 1]
            # It has the session's position, and looks it up no more.
            assert await seen(one, "/devices-and-diary", token) == [devices, 2]
            await other.post("/devices", headers=token)
        await copies[0].delete("/session", headers=token)
        assert (await copies[1].get("/devices", headers=token)).status_code == 401


async def test_a_client_that_echoes_the_header_sees_its_writes(replica: Server) -> None:
    async with copies_of(device_app()) as (copy,):
        await until_replica_is_read([copy], replica)
        token = await logged_in(copy)
        written = await copy.put(f"/diaries/{next(new_ids)}", params={"page": 1}, headers=token)
        echoing = {**token, "Read-After": written.headers["Read-After"]}
        assert await seen(copy, "/devices", echoing) == [1, 1]


async def test_a_replica_finds_the_session_and_the_row_of_a_browser(
    servers: Cluster, replica: Server
) -> None:
    app = device_app()
    async with copies_of(app) as (stranger,), browser(app) as ada:
        await until_replica_is_read([stranger], replica)
        await ada.post("/session")
        await ada.post("/devices")
        assert await seen(ada, "/devices", {}) == [2, 1]
        await caught_up(app, servers.primary, replica)
        lookups = await calls(servers.primary, "login_sessions")
        assert await seen(ada, "/devices", {}) == [2, 1]
        assert await calls(servers.primary, "login_sessions") == lookups


async def test_the_primary_finds_what_the_replica_does_not_know_yet(replica: Server) -> None:
    app = device_app()
    async with copies_of(app) as (stranger,), browser(app) as ada:
        await until_replica_is_read([stranger], replica)
        await ada.post("/session")
        await ada.get("/me")  # its answer has the marker
        for cookie in [name for name in ada.cookies if name.startswith("__Host-wrote-")]:
            ada.cookies.delete(cookie)
        assert await seen(ada, "/devices", {}) == [1, 2]
