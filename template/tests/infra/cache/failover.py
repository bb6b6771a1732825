# Rung's file: advancing to another stage may change it.
"""Two Valkeys and a name: connections opened before a failover stay with the old server."""

import asyncio
import re
import time
from collections.abc import Generator
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, suppress

import redis

from dev import ports
from dev.cache import valkey
from dev.cache.valkey import Valkey
from tests.infra.failing_over import Name, pump

COMMAND = re.compile(rb"^\*\d", re.MULTILINE)

# Answers of Redis, Valkey, a cluster or a hosting provider when a server must not be used now.
_REFUSALS = [
    *("ASK 3999 127.0.0.1:1", "BUSY Redis is busy running a script.", "CLUSTERDOWN down"),
    *("CROSSSLOT Keys in request don't hash to the same slot", "ERR max daily requests exceeded"),
    *("ERR max number of clients reached", "ERR unknown command", "EXECABORT discarded"),
    *("LOADING Redis is loading the dataset in memory", "MASTERDOWN Link with MASTER is down"),
    *("MISCONF Redis is unable to persist to disk", "MOVED 3999 127.0.0.1:1", "NOAUTH required"),
    *("NOPERM no permissions", "NOREPLICAS Not enough replicas", "NOSCRIPT No matching script"),
    *("OOM command not allowed", "READONLY a read only replica", "REDIRECT 127.0.0.1:1"),
    *("TRYAGAIN Multiple keys request", "UNBLOCKED forced", "WRONGPASS invalid password"),
    *("WRONGTYPE the wrong kind of value", "a word of another server"),
]

# Answers that no Redis gives to these commands: another server's, or those of another command.
_ODD_ANSWERS = [
    *(":5", "+OK", "$-1", "$2\r\n{}", "*-1", "*0", "*1\r\n:5", "*1\r\n*1\r\n:5", "*1\r\n-ERR"),
    *("*2\r\n$1\r\na\r\n$1\r\nb", "$abc", ":abc", "*-7", "-\xff", "-"),
    *("HTTP/1.1 400 Bad Request", "220 mail ready", "\x16\x03\x01", "_", "#t", "%1\r\n+a\r\n:1"),
]

REFUSALS = [f"-{refusal}\r\n".encode() for refusal in _REFUSALS]
ODD_ANSWERS = [f"{answer}\r\n".encode("latin-1") for answer in _ODD_ANSWERS]


class ValkeyName(Name[Valkey]):
    """Leads to one of two servers, or gives each command the same `answer`."""

    answer = b""
    answered = 0

    def demote_old(self) -> None:
        """Makes the server a replica, which answers lookups and refuses writes."""
        with redis.Redis.from_url(self.old.url) as client:
            client.config_set("masterauth", self.new.password)
            client.replicaof("127.0.0.1", self.new.port)

    async def forward(self, client: asyncio.StreamReader, answers: asyncio.StreamWriter) -> None:
        server, commands = await asyncio.open_connection("127.0.0.1", self.leads_to.port)
        await asyncio.gather(self._pump_commands(client, commands, answers), pump(server, answers))

    async def _pump_commands(
        self,
        client: asyncio.StreamReader,
        commands: asyncio.StreamWriter,
        answers: asyncio.StreamWriter,
    ) -> None:
        with suppress(ConnectionError):
            while part := await client.read(2**16):
                if self.answer:
                    self.answered += 1
                    answers.write(self.answer * len(COMMAND.findall(part)))
                else:
                    commands.write(part)
        commands.close()


@contextmanager
def one_shard(kind: str) -> Generator[Valkey]:
    """A server in cluster mode that has all keys."""
    settings: dict[str, str | int] = {"cluster-enabled": "yes", "cluster-port": ports.unused()}
    with valkey.running(kind, **settings) as server, redis.Redis.from_url(server.url) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        deadline = time.monotonic() + 60
        while b"cluster_state:ok" not in client.execute_command("CLUSTER", "INFO", NEVER_DECODE=[]):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        yield server


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


def name_of(old: Valkey, new: Valkey) -> AbstractAsyncContextManager[ValkeyName]:
    return ValkeyName(old, new).opened()
