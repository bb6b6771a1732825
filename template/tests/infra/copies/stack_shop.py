# Rung's file: advancing to another stage may change it.
"""A small shop for copies to serve. It needs no code of the team's."""

import asyncio
import sys
from uuid import UUID

from fastapi import FastAPI, Request
from sqlalchemy import text

from app import errors
from app.infra import serve, wiring
from app.infra.database import ReadSession, WriteSession
from app.infra.files import Files, UploadRequest
from app.infra.sessions import CurrentUser, Sessions

SERVE = (sys.executable, "-m", "tests.infra.copies.stack_shop")

# Without a unique key, so that an order placed twice is visible.
TABLE = "CREATE TABLE placed (key text NOT NULL)"


def create_app() -> FastAPI:
    app = FastAPI(**wiring.OPTIONS)
    errors.install(app)
    wiring.install(app)

    @app.get("/products")
    async def browse(read: ReadSession) -> list[int]:
        return [row["n"] for row in await read.fetch("SELECT generate_series(1, 20) AS n")]

    @app.post("/login/{user_id}")
    async def log_in(sessions: Sessions, user_id: UUID) -> None:
        await sessions.start(user_id)

    @app.get("/me")
    async def me(user: CurrentUser) -> UUID:
        return user.id

    @app.post("/orders/{key}", status_code=201)
    async def order(write: WriteSession, key: str, pause: float = 0) -> None:
        """Commits at once, and answers after the pause."""
        await write.execute(text("INSERT INTO placed VALUES (:key)"), {"key": key})
        await write.commit()
        await asyncio.sleep(pause)

    @app.post("/notes")
    async def note(request: Request) -> int:
        return len(await request.body())

    @app.post("/pictures/{key}")
    async def upload(files: Files, user: CurrentUser, key: str, size: int) -> UploadRequest:
        return files.upload_request(key, "image/png", size)

    @app.get("/pictures/{key}/size")
    async def size_of(files: Files, key: str) -> int:
        return (await files.facts(key)).size

    @app.get("/pictures/{key}/link")
    async def link(files: Files, key: str) -> str:
        return files.link(key, "image/png")

    @app.get("/slow")
    async def slow(seconds: float) -> str:
        print("the slow request has arrived", flush=True)
        await asyncio.sleep(seconds)
        return "at last"

    @app.get("/caller")
    async def caller(request: Request) -> dict[str, str]:
        host = request.client.host if request.client else ""
        trace = request.headers.get("traceparent", "")
        return {"address": host, "url": str(request.url), "trace": trace}

    return app


if __name__ == "__main__":
    serve.main("tests.infra.copies.stack_shop:create_app")
