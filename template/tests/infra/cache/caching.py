# Rung's file: advancing to another stage may change it.
"""An app that reads notes through the cache and counts its reads of Postgres."""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager

from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import text
from structlog.contextvars import get_contextvars

from app.infra.database import ReadSession, WriteSession
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from tests.infra.conftest import bare_app, browser, until

ALLOWED_SECONDS = 0.5

NOTES = "CREATE TABLE notes (number bigint PRIMARY KEY, body text NOT NULL)"


class Note(BaseModel):
    number: int
    body: str


class Loads:
    """Reads of notes from Postgres: counted, slowed down, and held by a gate."""

    def __init__(self) -> None:
        self.count = 0
        self.most_at_once = 0
        self.seconds = 0.0
        self.request_ids: list[str | None] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self._running = 0

    @contextmanager
    def counted(self) -> Iterator[None]:
        self.count += 1
        self._running += 1
        self.request_ids.append(get_contextvars().get("request_id"))
        self.most_at_once = max(self.most_at_once, self._running)
        try:
            yield
        finally:
            self._running -= 1


loads = Loads()


@max_stale(minutes=5)
async def note(read: Reader, number: int) -> Note | None:
    return await _load(read, number)


@max_stale(seconds=ALLOWED_SECONDS)
async def fresh_note(read: Reader, number: int) -> Note | None:
    return await _load(read, number)


async def _load(read: Reader, number: int) -> Note | None:
    with loads.counted():
        rows = await read.fetch("SELECT number, body FROM notes WHERE number = $1", number)
        await asyncio.sleep(loads.seconds)
        await loads.gate.wait()
    return Note(**dict(rows[0])) if rows else None


class Page(BaseModel):
    notes: list[Note]
    next: int | None = None


@max_stale(minutes=5)
async def notes_after(read: Reader, number: int) -> Page:
    rows = await read.fetch("SELECT number, body FROM notes WHERE number > $1", number)
    return Page(notes=[Note(**dict(row)) for row in rows])


def notes_app() -> FastAPI:
    """An app that reads notes through the cache, with the settings of the environment."""
    app = bare_app()

    @app.get("/notes/{number}")
    async def read_note(read: ReadSession, number: int) -> Note | None:
        return await note(read, number)

    @app.get("/fresh-notes/{number}")
    async def read_fresh_note(read: ReadSession, number: int) -> Note | None:
        return await fresh_note(read, number)

    @app.get("/notes-after/{number}")
    async def read_notes_after(read: ReadSession, number: int) -> Page:
        return await notes_after(read, number)

    @app.put("/notes/{number}/{body}")
    async def write_note(
        write: WriteSession, number: int, body: str, invalidate: bool = False, fail: bool = False
    ) -> None:
        await write.execute(
            text(
                "INSERT INTO notes VALUES (:number, :body)"
                " ON CONFLICT (number) DO UPDATE SET body = :body"
            ),
            {"number": number, "body": body},
        )
        if invalidate:
            note.invalidate(write, number)
        if fail:
            raise ValueError("rolled back")

    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncGenerator[AsyncClient]:
    """Yields a browser of the started app when the cache is in use."""
    async with app.router.lifespan_context(app), browser(app) as client:
        await until(lambda: app.state.cache.server.is_reachable)
        yield client


async def body(client: AsyncClient, path: str) -> str | None:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return str(found["body"]) if found else None


async def put(client: AsyncClient, number: int, body: str, **options: bool) -> None:
    answer = await client.put(f"/notes/{number}/{body}", params=options)
    assert answer.status_code == 200, answer.text
