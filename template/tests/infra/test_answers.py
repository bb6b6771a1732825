# Rung's file: advancing to another stage may change it.
"""A request is freed when its answer is sent, and an answer to HEAD does not wait for a body."""

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Message

from app.infra.database import ReadSession
from tests.infra.conftest import Serve


class Exchange:
    """One request and its answer. It holds the scope, as the server does."""

    def __init__(self, app: FastAPI, method: str, path: str) -> None:
        self.status = 0
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "https",
            "server": ("shop.test", 443),
            "client": ("127.0.0.1", 1),
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"shop.test")],
            "state": {},
            "app": app,
        }

    async def receive(self) -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Message) -> None:
        self.status = message.get("status", self.status)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(("path", "status"), [("/read", 200), ("/nowhere", 404)])
async def test_a_request_is_freed_without_the_garbage_collector(
    bare: FastAPI, serve: Serve, method: str, path: str, status: int
) -> None:
    @bare.get("/read")
    async def read(read: ReadSession) -> int:
        return len(await read.fetch("SELECT 1"))

    async def ask() -> weakref.ref[Exchange]:
        exchange = Exchange(bare, method, path)
        await bare(exchange.scope, exchange.receive, exchange.send)
        assert exchange.status == status
        return weakref.ref(exchange)

    async with serve(bare):
        await asyncio.create_task(ask())  # the first request fills caches
        gc.disable()
        try:
            freed = await asyncio.create_task(ask())
            assert freed() is None
        finally:
            gc.enable()


async def test_an_answer_to_head_ends_at_once_where_get_is_an_endless_stream(
    bare: FastAPI, serve: Serve
) -> None:
    ended = asyncio.Event()

    async def events() -> AsyncGenerator[str]:
        try:
            while True:
                yield "data: news\n\n"
                await asyncio.sleep(0.01)
        finally:
            ended.set()

    @bare.get("/events")
    async def stream() -> StreamingResponse:
        return StreamingResponse(events(), media_type="text/event-stream")

    async with serve(bare) as client, asyncio.timeout(300):
        answer = await client.head("/events")
        await ended.wait()

    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"].startswith("text/event-stream")
