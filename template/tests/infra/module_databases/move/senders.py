# Rung's file: advancing to another stage may change it.
"""Clients of both versions of the app, and a command that is killed at each of its statements."""

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import asyncpg

from app.infra.module_databases.move.sides import Move, Refused
from tests.infra.module_databases.move.conftest import Urls, as_the_app, becomes, moving

# Its children have all modules at once, so a kill hits their work and not their imports.
processes = multiprocessing.get_context("forkserver")


class Senders:
    """Each sends, changes and takes back parcels until they stop. A write that the old database
    refuses goes to the new one, and the other way round, as while two versions of the app run."""

    def __init__(self, urls: Urls) -> None:
        self._urls = urls
        self._stopped = False
        self.sent: dict[UUID, str] = {}
        self.writes = 0

    def stop(self) -> None:
        self._stopped = True

    async def until(self, writes: int) -> None:
        async def are_done() -> bool:
            return self.writes >= writes

        await becomes(are_done)

    async def send(self) -> None:
        connections = [await asyncpg.connect(as_the_app(url)) for url in self._urls]
        for number in count():
            if self._stopped:
                break
            parcel = uuid4()
            await self._write(connections, _send, parcel, f"first {number}")
            self.sent[parcel] = f"first {number}"
            await self._write(connections, _change, parcel, f"then {number}")
            self.sent[parcel] = f"then {number}"
            if number % 3 == 0:
                await self._write(connections, _take_back, parcel)
                del self.sent[parcel]
        for connection in connections:
            await connection.close()

    async def _write(self, connections: list[asyncpg.Connection], write: Any, *values: Any) -> None:
        async with asyncio.timeout(300):
            while True:
                try:
                    async with connections[0].transaction():
                        await write(connections[0], *values)
                except asyncpg.LockNotAvailableError:
                    connections.reverse()
                    await asyncio.sleep(0.005)
                else:
                    self.writes += 1
                    await asyncio.sleep(0.002)  # the command needs the processor too
                    return


async def _send(connection: asyncpg.Connection, parcel: UUID, text: str) -> None:
    await connection.execute("INSERT INTO parcels VALUES ($1, $2)", parcel, text)
    await connection.execute("INSERT INTO stamps (parcel) VALUES ($1)", parcel)


async def _change(connection: asyncpg.Connection, parcel: UUID, text: str) -> None:
    done = await connection.execute("UPDATE parcels SET text = $2 WHERE id = $1", parcel, text)
    assert done == "UPDATE 1", f"{parcel} is not where it was sent"


async def _take_back(connection: asyncpg.Connection, parcel: UUID) -> None:
    await connection.execute("DELETE FROM stamps WHERE parcel = $1", parcel)
    await connection.execute("DELETE FROM parcels WHERE id = $1", parcel)


async def killed_at_each_statement(
    urls: Urls, step: Callable[[Move], Awaitable[str]], every: int = 1
) -> int:
    """Runs the step again and again, killed before its first statement, its second, and so on,
    until it ends. Returns the number of kills."""
    processes.set_forkserver_preload([__name__])
    for kills in count():
        number = 1 + kills * every
        process = processes.Process(target=_take, args=(urls, step, number, dict(os.environ)))
        process.start()
        await asyncio.to_thread(process.join, 60)
        if process.exitcode != -signal.SIGKILL:
            assert process.exitcode == 0
            return kills
    raise AssertionError


def _take(
    urls: Urls, step: Callable[[Move], Awaitable[str]], kill_at: int, environment: dict[str, str]
) -> None:
    os.environ.update(environment)
    numbers = count(1)

    def killed[**P, T](act: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
        async def acts(*arguments: P.args, **options: P.kwargs) -> T:
            if next(numbers) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return await act(*arguments, **options)

        return acts

    for name in ("execute", "fetch", "fetchval"):
        setattr(asyncpg.Connection, name, killed(getattr(asyncpg.Connection, name)))

    async def take() -> None:
        async with moving(urls) as move:
            await move.refuse_another()
            await step(move)

    try:
        asyncio.run(take())
    except Refused as error:
        raise SystemExit(f"Refused: {error}") from None
