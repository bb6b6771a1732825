# Rung's file: advancing to another stage may change it.
"""Copies of an app that follow a move, and clients that use all of them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from typing import Annotated, Any
from uuid import UUID, uuid4

import pytest
from fastapi import Depends, FastAPI
from httpx import AsyncClient
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.module_databases.crossing import elsewhere
from app.infra.module_databases.sessions import module_sessions
from app.infra.reads import Reader
from tests.infra.conftest import bare_app, browser
from tests.infra.module_databases.move.conftest import Urls, as_the_app, becomes

parcels, letters = module_sessions("parcels"), module_sessions("letters")
ParcelsRead = Annotated[Reader, Depends(parcels.read)]
ParcelsWrite = Annotated[AsyncSession, Depends(parcels.write, scope="function")]

SEND = """
    WITH sent AS (
        INSERT INTO parcels (id, text) VALUES (:id, :text)
        ON CONFLICT (id) DO UPDATE SET text = excluded.text
    ) INSERT INTO stamps DEFAULT VALUES
"""


def set_environment(environment: pytest.MonkeyPatch, urls: Urls, *, follow: bool = True) -> None:
    environment.setenv("DATABASE_URL", as_the_app(urls[0]))
    environment.setenv("MODULE_PARCELS_DATABASE_URL", as_the_app(urls[1]))
    environment.setenv("MODULE_PARCELS_DATABASE_FOLLOW", str(follow))
    for prefix in ("", "MODULE_PARCELS_"):
        # A command that was killed between its two commits runs again within this time.
        for name in ("CONNECT", "POOL_WAIT", "STATEMENT"):
            environment.setenv(f"{prefix}DATABASE_{name}_SECONDS", "60")


def post_office() -> FastAPI:
    app = bare_app()

    @app.put("/parcels/{parcel}")
    async def send(parcel: UUID, text: str, write: ParcelsWrite) -> None:
        await _send(write, parcel, text)

    @app.delete("/parcels/{parcel}")
    async def take_back(parcel: UUID, write: ParcelsWrite) -> None:
        await write.execute(text("DELETE FROM parcels WHERE id = :id"), {"id": parcel})

    @app.get("/parcels/{parcel}")
    async def sent(parcel: UUID, read: ParcelsRead) -> str | None:
        rows = await read.fetch("SELECT text FROM parcels WHERE id = $1", parcel)
        return rows[0]["text"] if rows else None

    @app.post("/parcels/{parcel}")
    async def cross(parcel: UUID, write: ParcelsWrite) -> None:
        await _send(write, parcel, "before")
        async with elsewhere(write, letters) as theirs:
            await theirs.execute(text("SELECT 1"))
            await app.state.meanwhile()
        await _send(write, parcel, "after")

    return app


async def _send(write: AsyncSession, parcel: UUID, words: str) -> None:
    await write.execute(text(SEND), {"id": parcel, "text": words})


class Copies:
    """Each answers a part of the requests. `faults` has each answer that is an error or is older
    than the client's own write."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._clients: list[AsyncClient] = []
        self._stopped = False
        self.sent: dict[UUID, str] = {}
        self.faults: list[str] = []
        self.requests = 0

    async def start(self) -> AsyncClient:
        app = post_office()
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        client = await self._stack.enter_async_context(browser(app))
        self._clients.append(client)
        return client

    async def roll(self) -> None:
        """A new copy takes over from the oldest one, which ends what it has begun."""
        await self.start()
        self._clients.pop(0)

    def stop(self) -> None:
        self._stopped = True

    async def some_more(self, requests: int = 60) -> None:
        wanted = self.requests + requests

        async def are_done() -> bool:
            return self.requests >= wanted

        await becomes(are_done)

    async def use(self) -> None:
        for number in count():
            if self._stopped:
                return
            parcel = uuid4()
            for words in (f"first {number}", f"then {number}"):
                await self._ask("PUT", parcel, {"text": words})
                self.sent[parcel] = words
                await self._must_read(parcel, words)
            if number % 3 == 0:
                await self._ask("DELETE", parcel)
                del self.sent[parcel]
                await self._must_read(parcel, None)
            await asyncio.sleep(0.002)  # the command needs the processor too

    async def _must_read(self, parcel: UUID, words: str | None) -> None:
        found = await self._ask("GET", parcel)
        if found != words:
            self.faults.append(f"stale: {found!r} is not {words!r}")

    async def _ask(self, method: str, parcel: UUID, values: dict[str, str] | None = None) -> Any:
        # A read asks another copy than the write before it.
        client = self._clients[self.requests % len(self._clients)]
        self.requests += 1
        answer = await client.request(method, f"/parcels/{parcel}", params=values)
        if answer.status_code != 200:
            self.faults.append(f"{method}: {answer.status_code} {answer.text}")
        return answer.json()


@asynccontextmanager
async def used(number: int = 3, clients: int = 4) -> AsyncGenerator[Copies]:
    """Clients use them until the block ends."""
    async with AsyncExitStack() as stack:
        copies = Copies(stack)
        for _ in range(number):
            await copies.start()
        async with asyncio.TaskGroup() as using:
            for _ in range(clients):
                using.create_task(copies.use())
            try:
                yield copies
            finally:
                copies.stop()
