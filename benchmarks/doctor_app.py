"""An app with one fault a route, for doctor_cases.py. It runs in a generated repo."""

import asyncio
import time

from app import errors
from app.infra import wiring
from app.infra.database import ReadSession, WriteSession
from app.infra.freshness import max_stale
from app.infra.reads import Reader
from fastapi import FastAPI
from sqlalchemy import text

TABLES = """
    CREATE TABLE visits (id int PRIMARY KEY, guest int NOT NULL, page text NOT NULL);
    INSERT INTO visits SELECT n, n % 20000, 'home' FROM generate_series(1, 200000) AS n;
    CREATE TABLE counters (id int PRIMARY KEY, n int NOT NULL);
    INSERT INTO counters VALUES (1, 0);
    CREATE TABLE imported (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, page text);
    CREATE INDEX ON imported (page);
    CREATE TABLE crowd (id int PRIMARY KEY, n int NOT NULL) WITH (autovacuum_enabled = false);
    INSERT INTO crowd SELECT n, 0 FROM generate_series(1, 1000) AS n;
    ANALYZE
"""
SUM = "SELECT count(*), sum(id * $1::int) FROM generate_series(1, 400000) AS id"


@max_stale(minutes=5)
async def total(read: Reader, key: int) -> list[int]:
    return [row[0] for row in await read.fetch(SUM, key)]


@max_stale(minutes=5)
async def large(read: Reader, key: int) -> list[str]:
    return [row[0] for row in await read.fetch("SELECT repeat(md5($1::int::text), 500)", key)]


def create_app() -> FastAPI:
    app = FastAPI(**wiring.OPTIONS)
    errors.install(app)
    keys = iter(range(1, 1_000_000))

    @app.get("/healthy")
    async def healthy(read: ReadSession) -> None:
        await read.fetch("SELECT * FROM visits WHERE id = $1", 7)

    @app.get("/scan")
    async def scan(read: ReadSession) -> None:
        await read.fetch("SELECT * FROM visits WHERE guest = $1", 7)

    @app.get("/ordered")
    async def ordered(read: ReadSession) -> None:
        sql = "SELECT * FROM visits WHERE guest = $1 ORDER BY id DESC LIMIT 15"
        await read.fetch(sql, 7)

    @app.get("/rows")
    async def rows(read: ReadSession) -> None:
        for key in range(15):
            await read.fetch("SELECT * FROM visits WHERE id = $1", key)

    @app.get("/hot")
    async def hot(write: WriteSession) -> None:
        await write.execute(text("UPDATE counters SET n = n + 1 WHERE id = 1"))
        await write.execute(text("SELECT pg_sleep(0.05)"))

    @app.get("/call")
    async def call(write: WriteSession) -> None:
        await write.execute(text("SELECT 1"))
        await asyncio.sleep(6)

    @app.get("/call-on-a-row")
    async def call_on_a_row(write: WriteSession) -> None:
        await write.execute(text("UPDATE counters SET n = n + 1 WHERE id = 1"))
        await asyncio.sleep(4)

    @app.get("/change")
    async def change(write: WriteSession) -> None:
        await write.execute(text("INSERT INTO imported (page) VALUES ('home')"))

    @app.get("/crowd")
    async def crowd(read: ReadSession) -> None:
        await read.fetch("SELECT sum(n) FROM crowd")

    @app.get("/large")
    async def large_answers(read: ReadSession) -> None:
        await large(read, next(keys) % 400)

    @app.get("/unsaid")
    async def unsaid(read: ReadSession) -> None:
        await read.fetch(SUM, 1)

    @app.get("/import")
    async def imports(write: WriteSession) -> None:
        await write.execute(
            text("INSERT INTO imported (page) SELECT md5(n::text) FROM generate_series(1, 3000) n")
        )

    @app.get("/same")
    async def same(read: ReadSession) -> None:
        await total(read, next(keys) % 20)

    @app.get("/different")
    async def different(read: ReadSession) -> None:
        await total(read, next(keys))

    @app.get("/cpu")
    async def cpu() -> None:
        ends = time.thread_time() + 0.03
        while time.thread_time() < ends:
            pass

    @app.get("/sleep")
    async def sleep() -> None:
        time.sleep(0.2)  # that is the fault

    @app.get("/far")
    async def far(read: ReadSession) -> None:
        await read.fetch("SELECT pg_sleep(0.1)")

    @app.get("/tiny")
    async def tiny(read: ReadSession) -> None:
        await read.fetch("SELECT * FROM counters WHERE n = $1", -1)

    wiring.install(app)
    return app
