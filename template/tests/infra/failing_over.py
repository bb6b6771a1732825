# Rung's file: advancing to another stage may change it.
"""Two Postgres servers and a name that leads to one of them."""

import asyncio
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Protocol, Self
from urllib.parse import urlsplit

import asyncpg
from fastapi import FastAPI
from httpx import AsyncClient
from sqlalchemy import text

from app.infra.database import ReadSession, WriteSession
from dev import postgres
from dev.server import START_SECONDS
from tests.infra.conftest import bare_app, fetch_value

PASSWORD = "of-both-servers"


class Server:
    def __init__(self) -> None:
        self._folder = postgres.temporary_folder() / f"rung-failover-{secrets.token_hex(4)}"
        self.pid_file = self._folder / "data" / "postmaster.pid"
        self._running = ExitStack()
        self.start()

    def start(self) -> None:
        server = postgres.Postgres(self._folder, postgres.TEMPORARY_SETTINGS)
        self.url = f"{self._running.enter_context(server.running()).url}/postgres"

    def stop(self) -> None:
        self._running.close()

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder)

    def demote(self) -> None:
        """Makes the server a replica, which answers reads and refuses writes."""
        self.stop()
        (self._folder / "data" / "standby.signal").touch()
        self.start()

    def lets_nobody_in(self) -> None:
        """Makes the server answer 57P03, as if it were starting after a crash."""
        self.stop()
        (self._folder / "data" / "standby.signal").touch()
        options = {**postgres.TEMPORARY_SETTINGS, "hot_standby": "off", "port": str(self.port)}
        with (self._folder / "log").open("ab") as log:
            loading = subprocess.Popen(
                [
                    *(postgres.binaries() / "postgres", "-D", self._folder / "data"),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                env=postgres.environment(),
                user=postgres.SERVER_USER,
                group=postgres.SERVER_USER,
                extra_groups=None if postgres.SERVER_USER is None else [],
                stdout=log,
                stderr=log,
            )
        self._running.callback(loading.wait)
        self._running.callback(loading.send_signal, signal.SIGINT)
        deadline = time.monotonic() + START_SECONDS
        while not self._is_loading():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _is_loading(self) -> bool:
        try:
            asyncio.run(self.run("SELECT 1"))
        except asyncpg.CannotConnectNowError:
            return True
        except OSError:
            return False
        raise AssertionError("it lets us in")

    async def prepare(self, password: str) -> None:
        """The hash that Postgres stores. A pooler knows the password only in this form."""
        await self.run(f"ALTER ROLE app PASSWORD '{password}'")
        (self._folder / "password").write_text(PASSWORD)
        self.url = self.url.replace(urlsplit(self.url).password or "", PASSWORD)
        await self.run("CREATE TABLE notes (port text DEFAULT current_setting('port'))")

    @property
    def port(self) -> int:
        port = urlsplit(self.url).port
        assert port
        return port

    async def stored(self, password: str) -> str:
        await self.run(f"CREATE ROLE other PASSWORD '{password}'")
        return await self.run("SELECT rolpassword FROM pg_authid WHERE rolname = 'other'")

    async def run(self, statement: str) -> str:
        return str(await fetch_value(self.url, statement))


class OnPort(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def port(self) -> int: ...


class Name[S: OnPort]:
    """A port that leads to one of two servers. Open connections stay where they are."""

    def __init__(self, old: S, new: S) -> None:
        self.old = old
        self.new = new
        self.leads_to = old
        self.port = 0

    @property
    def url(self) -> str:
        return self.old.url.replace(f":{self.old.port}/", f":{self.port}/")

    async def forward(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        try:
            server, requests = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        except OSError:
            answers.close()
            return
        await asyncio.gather(pump(client, requests), pump(server, answers))

    @asynccontextmanager
    async def opened(self) -> AsyncGenerator[Self]:
        async with await asyncio.start_server(self.forward, "127.0.0.1") as listener:
            self.port = listener.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                listener.close_clients()


async def pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await source.read(2**16):
            to.write(part)
    to.close()


@asynccontextmanager
async def name_of_two() -> AsyncGenerator[Name[Server]]:
    with ExitStack() as stack:
        old, new = await asyncio.gather(asyncio.to_thread(Server), asyncio.to_thread(Server))
        stack.callback(old.remove)
        stack.callback(new.remove)
        stored = await old.stored(PASSWORD)
        for server in (old, new):
            await server.prepare(stored)
        async with Name(old, new).opened() as name:
            yield name


def notes_app() -> FastAPI:
    """An app whose notes say which server stored them."""
    app = bare_app()

    @app.post("/notes")
    async def write(write: WriteSession) -> str:
        port: str = await write.scalar(text("INSERT INTO notes DEFAULT VALUES RETURNING port"))
        return port

    @app.get("/notes")
    async def read(read: ReadSession) -> list[str]:
        return [row["port"] for row in await read.fetch("SELECT port FROM notes")]

    return app


async def written(client: AsyncClient) -> int | str:
    """The port of the server that took the write, or the status of the refusal."""
    answer = await client.post("/notes")
    return int(answer.json()) if answer.status_code == 200 else f"refused: {answer.status_code}"


async def until_written(client: AsyncClient, port: int) -> None:
    for _ in range(10_000):
        if await written(client) == port:
            return
        await asyncio.sleep(0.01)
