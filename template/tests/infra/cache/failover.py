# Rung's file: advancing to another stage may change it.
"""Two Valkeys and a name: connections opened before a failover stay with the old server."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress

import redis

from dev.cache import valkey
from dev.cache.valkey import Valkey


class Name:
    """A port that leads to one of two servers."""

    def __init__(self, old: Valkey, new: Valkey) -> None:
        self.old = old
        self.new = new
        self.leads_to = old
        self.port = 0

    @property
    def url(self) -> str:
        return self.old.url.replace(f":{self.old.port}/", f":{self.port}/")

    def demote_old(self) -> None:
        """Makes the server a replica, which answers lookups and refuses writes."""
        with redis.Redis.from_url(self.old.url) as client:
            client.config_set("masterauth", self.new.password)
            client.replicaof("127.0.0.1", self.new.port)

    async def forward(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, commands = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        await asyncio.gather(_pump(client, commands), _pump(server, answers))


@contextmanager
def two_servers(kind: str) -> Generator[tuple[Valkey, Valkey]]:
    """Yields two servers with one password, because one name leads to both."""
    with ExitStack() as stack:
        old = stack.enter_context(valkey.running(kind))
        new = stack.enter_context(valkey.running(kind))
        with redis.Redis.from_url(new.url) as client:
            client.config_set("requirepass", old.password)
        (new.folder / "password").write_text(old.password)
        yield old, new


@asynccontextmanager
async def name_of(old: Valkey, new: Valkey) -> AsyncGenerator[Name]:
    name = Name(old, new)
    async with await asyncio.start_server(name.forward, "127.0.0.1") as listener:
        name.port = listener.sockets[0].getsockname()[1]
        try:
            yield name
        finally:
            listener.close_clients()


async def _pump(source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while part := await source.read(2**16):
            to.write(part)
    to.close()
