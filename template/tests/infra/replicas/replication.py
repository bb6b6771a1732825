# Rung's file: advancing to another stage may change it.
"""A primary and its replicas for tests, to be slowed down, stopped, killed and promoted."""

import asyncio
import ctypes
import os
import signal
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy.dialects.postgresql import dialect
from sqlalchemy.schema import CreateTable

from app.infra import session_rows as session_rows
from app.infra.tables import Base
from dev import postgres
from dev.replicas import replica
from tests.infra.conftest import children, fetch_value, until

SETTINGS = postgres.TEMPORARY_SETTINGS | {
    "synchronous_commit": "on",  # replicas receive only flushed commits
    "max_connections": "60",
    "max_standby_streaming_delay": "100ms",
    "wal_keep_size": "64MB",  # otherwise a replica may miss segments while another one is copied
    "dynamic_shared_memory_type": "mmap",  # is removed with the folder, however the server ended
}

# Commands of shmctl(2) on Linux and macOS.
IPC_RMID, IPC_STAT = 0, 2

# Requests with a token ask for it.
SESSIONS = str(CreateTable(Base.metadata.tables["login_sessions"]).compile(dialect=dialect()))  # type: ignore[no-untyped-call]


# The server says so in its log, and closes the connection.
RECOVERY_CONFLICT = (asyncpg.SerializationError, asyncpg.ConnectionDoesNotExistError)


class Server:
    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url

    def signal(self, number: signal.Signals) -> None:
        """SIGINT stops it, SIGKILL kills it; SIGSTOP and SIGCONT go to all its processes."""
        pids = [int(self._pid_file()[0])]
        if number in {signal.SIGSTOP, signal.SIGCONT}:
            pids += children(pids[0])
        for pid in pids:
            with suppress(ProcessLookupError):  # a child process may have ended meanwhile
                os.kill(pid, number)
        if number == signal.SIGKILL:
            # Nobody else removes it, and macOS has room for that of 32 servers.
            self._shared_memory(IPC_RMID)

    async def has_no_shared_memory(self) -> bool:
        return self._shared_memory(IPC_STAT) == -1

    def _shared_memory(self, command: int) -> int:
        segment = int(self._pid_file()[6].split()[1])
        done: int = ctypes.CDLL(None).shmctl(segment, command, ctypes.create_string_buffer(512))
        return done

    def _pid_file(self) -> Sequence[str]:
        return (self.folder / "data" / "postmaster.pid").read_text().splitlines()

    @property
    def port(self) -> int | None:
        return urlsplit(self.url).port

    def url_as(self, role: str) -> str:
        """The role's password is its name."""
        url = urlsplit(self.url)
        return url._replace(netloc=f"{role}:{role}@{url.hostname}:{url.port}").geturl()

    async def said_yes(self, condition: str) -> bool:
        return await self.run(f"SELECT {condition}") is True

    async def becomes(self, condition: str) -> None:
        await until(lambda: self.said_yes(condition))

    async def run(self, statement: str) -> object:
        """Repeats a read that a replica cancels because the primary has removed its rows."""
        for _ in range(5):
            try:
                return await fetch_value(self.url, statement)
            except RECOVERY_CONFLICT:
                await asyncio.sleep(0.1)
        return await fetch_value(self.url, statement)


class Cluster:
    """Starts one primary, and a replica for each call of `replica`."""

    def __init__(self, name: str, stack: ExitStack) -> None:
        self._name = name
        self._stack = stack
        folder = self._folder("primary")
        server = postgres.Postgres(folder, SETTINGS, remove=True).running()
        self.primary = Server(folder, f"{stack.enter_context(server).url}/postgres")

    def replica(self, name: str = "replica", of: Server | None = None) -> Server:
        """Starts a replica, or starts it again with the primary's present data."""
        upstream = (of or self.primary).url
        folder = self._folder(name)
        settings = SETTINGS | ({"primary_conninfo": upstream} if of else {})
        url = self._stack.enter_context(replica.of(self.primary.url, folder, settings))
        return Server(folder, url)

    def _folder(self, name: str) -> Path:
        return postgres.temporary_folder() / f"{self._name}-{name}"


@contextmanager
def cluster(name: str) -> Iterator[Cluster]:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        # A busy machine may stop this process for seconds. Reads stay on the replica meanwhile.
        patch.setattr("app.infra.replicas.replicas.SILENCE_SECONDS", 30)
        yield Cluster(name, stack)


@asynccontextmanager
async def always_reading(server: Server, query: str, value: str) -> AsyncGenerator[None]:
    async def reads() -> None:
        connection = await asyncpg.connect(server.url)
        try:
            while True:
                await connection.fetch(query, value)
        finally:
            connection.terminate()

    reading = asyncio.create_task(reads())
    yield
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
