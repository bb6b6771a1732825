# Rung's file: advancing to another stage may change it.
"""Clients that send back only their token, and a small app for them in two copies."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from uuid import uuid4

from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text

from app.infra.database import ReadSession, WriteSession
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from app.infra.sessions import CurrentUser, Sessions
from tests.infra.conftest import bare_app, browser

# How many writes, each followed by reads on the other copy.
ROUNDS = int(os.environ.get("ROUNDS", "160"))
CLIENTS = 16
LOGIN_EVERY = 5

DIARIES = "CREATE TABLE diaries (id bigint PRIMARY KEY, page bigint NOT NULL)"

new_ids = itertools.count(1)


@max_stale(minutes=5)
async def cached_page(read: Reader, diary: int) -> int | None:
    return await _page(read, diary)


async def _page(read: Reader, diary: int) -> int | None:
    rows = await read.fetch("SELECT page FROM diaries WHERE id = $1", diary)
    return rows[0]["page"] if rows else None


def add_logins(app: FastAPI) -> None:
    @app.post("/tokens")
    async def log_in(sessions: Sessions) -> str:
        return (await sessions.start(uuid4(), cookie=False)).token

    @app.post("/session")
    async def log_in_by_cookie(sessions: Sessions) -> None:
        await sessions.start(uuid4())

    @app.get("/me")
    async def me(user: CurrentUser) -> str:
        return str(user.id)


def diary_app() -> FastAPI:
    """An app of diaries, with the settings of the environment."""
    app = bare_app()
    add_logins(app)

    @app.delete("/session")
    async def log_out(sessions: Sessions) -> None:
        await sessions.end()

    @app.put("/diaries/{diary}")
    async def write(write: WriteSession, user: CurrentUser, diary: int, page: int) -> None:
        statement = """INSERT INTO diaries VALUES (:diary, :page)
            ON CONFLICT (id) DO UPDATE SET page = excluded.page"""
        await write.execute(text(statement), {"diary": diary, "page": page})
        if page % 3 == 0:
            cached_page.invalidate(write, diary)

    @app.get("/diaries/{diary}")
    async def read(read: ReadSession, diary: int) -> int | None:
        return await _page(read, diary)

    @app.get("/own-diaries/{diary}")
    async def read_twice(read: ReadSession, user: CurrentUser, diary: int) -> int | None:
        await _page(read, diary)
        return await _page(read, diary)

    @app.get("/cached-diaries/{diary}")
    async def read_cached(read: ReadSession, diary: int) -> int | None:
        return await cached_page(read, diary)

    return app


@asynccontextmanager
async def copies_of(*apps: FastAPI) -> AsyncGenerator[list[AsyncClient]]:
    """Starts copies, and yields for each of them a client that sends only a token."""
    async with AsyncExitStack() as stack:
        for app in apps:
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield [await stack.enter_async_context(browser(app)) for app in apps]


async def logged_in(copy: AsyncClient) -> dict[str, str]:
    answer = await copy.post("/tokens")
    assert answer.status_code == 200
    assert "set-cookie" not in answer.headers
    return {"Authorization": f"Bearer {answer.json()}"}


async def stale_reads_with_saved_cookies(copy: AsyncClient) -> int:
    """Of a script that saves the cookies of its login, and those of no later answer."""
    saved = "; ".join(f"{name}={of}" for name, of in (await copy.post("/session")).cookies.items())
    diary, stale = next(new_ids), 0
    for page in (1, 2, 4, 5):
        copy.cookies.clear()
        await copy.put(f"/diaries/{diary}", params={"page": page}, headers={"Cookie": saved})
        copy.cookies.clear()
        answer = await copy.get(f"/cached-diaries/{diary}", headers={"Cookie": saved})
        stale += answer.json() != page
    return stale


async def mistakes_of_many(copies: list[AsyncClient], rounds: int = ROUNDS) -> Counter[str]:
    """The mistakes that 16 clients see. Each writes at one copy and reads at the other."""
    each = rounds // CLIENTS
    counted = await asyncio.gather(*(mistakes(copies, each) for _ in range(CLIENTS)))
    assert not any(copy.cookies for copy in copies)
    return sum(counted, Counter())


async def mistakes(copies: list[AsyncClient], rounds: int) -> Counter[str]:
    met: Counter[str] = Counter()
    diary = next(new_ids)
    token = await logged_in(copies[0])
    for page in range(rounds):
        one, other = copies[page % 2], copies[1 - page % 2]
        if page % LOGIN_EVERY == LOGIN_EVERY - 1:
            await one.delete("/session", headers=token)
            met["accepted after logout"] += await status_of(other, token) != 401
            token = await logged_in(one)
            met["401 after login"] += await status_of(other, token) != 200
        path = f"/diaries/{diary}"
        written = await one.put(path, params={"page": page}, headers=token)
        if written.status_code != 200:
            met["writes refused"] += 1
            continue
        for read in (f"/cached-diaries/{diary}", path, f"/cached-diaries/{diary}"):
            answer = await other.get(read, headers=token)
            met["stale"] += answer.json() != page
    return +met


async def status_of(copy: AsyncClient, token: dict[str, str]) -> int:
    return (await copy.get("/me", headers=token)).status_code
