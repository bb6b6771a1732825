# Rung's file: advancing to another stage may change it.
"""A WebSocket of the team: who may open it, and how it reads and writes."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI, WebSocket
from httpx import AsyncClient
from sqlalchemy import text

from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser, Sessions
from tests.infra.conftest import Serve

type Headers = dict[str, str]


@pytest.fixture
def chat(bare: FastAPI) -> FastAPI:
    @bare.post("/login/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> str:
        return (await sessions.start(user_id)).token

    @bare.websocket("/chat")
    async def talk(websocket: WebSocket, user: CurrentUser, read: ReadSession) -> None:
        await websocket.accept()
        [row] = await read.fetch("SELECT 6 * 7")
        await websocket.send_text(f"{user.id} {row[0]}")
        async with websocket.app.state.database.transaction() as write:
            await write.execute(text("CREATE TEMPORARY TABLE said (words text) ON COMMIT DROP"))
        await websocket.close()

    @bare.websocket("/all-day")
    async def all_day(websocket: WebSocket, _: WriteSession) -> None:
        await websocket.accept()

    return bare


@asynccontextmanager
async def visitor(serve: Serve, chat: FastAPI) -> AsyncGenerator[tuple[AsyncClient, UUID, str]]:
    async with serve(chat) as client:
        ada = uuid4()
        token = (await client.post(f"/login/{ada}")).json()
        yield client, ada, token


async def opened(app: FastAPI, path: str, headers: Headers) -> list[dict[str, Any]]:
    """What the app sends to a client that only opens the WebSocket."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(n.encode(), v.encode()) for n, v in ({"host": "shop.test"} | headers).items()],
        "client": ("127.0.0.1", 5000),
        "server": ("shop.test", 80),
        "subprotocols": [],
        "state": {},
        "extensions": {"websocket.http.response": {}},
    }
    await app(scope, receive, send)
    return sent


def cookies_of(client: AsyncClient) -> Headers:
    return {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


@pytest.mark.parametrize("by", ["cookie", "token"])
async def test_a_logged_in_user_opens_one_that_reads_and_writes(
    serve: Serve, chat: FastAPI, by: str
) -> None:
    async with visitor(serve, chat) as (client, ada, token):
        own = cookies_of(client) | {"origin": "https://shop.test"}
        headers = own if by == "cookie" else {"authorization": f"Bearer {token}"}
        accepted, said, _ = await opened(chat, "/chat", headers)
    assert accepted["type"] == "websocket.accept"
    assert said["text"] == f"{ada} 42"


async def test_nobody_gets_a_401(serve: Serve, chat: FastAPI) -> None:
    async with serve(chat):
        answer, _ = await opened(chat, "/chat", {})
    assert (answer["type"], answer["status"]) == ("websocket.http.response.start", 401)


@pytest.mark.parametrize("header", ["origin", "sec-fetch-site"])
async def test_a_page_of_another_site_gets_a_403(serve: Serve, chat: FastAPI, header: str) -> None:
    says = {"origin": "https://evil.test", "sec-fetch-site": "same-site"}[header]
    async with visitor(serve, chat) as (client, _, _):
        answer, _ = await opened(chat, "/chat", cookies_of(client) | {header: says})
    assert (answer["type"], answer["status"]) == ("websocket.http.response.start", 403)


async def test_no_transaction_stays_open_with_a_websocket(serve: Serve, chat: FastAPI) -> None:
    async with serve(chat):
        with pytest.raises(TypeError, match=r"names\.md#websockets"):
            await opened(chat, "/all-day", {})
