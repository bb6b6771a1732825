"""Sends requests at a steady rate, even when earlier ones are slow."""

import asyncio
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

CONNECTIONS = 32
A_SECOND = 400
PATIENCE = 10.0  # seconds, after which a request counts as failed


@dataclass
class Answered:
    milliseconds: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def requests(self) -> int:
        return len(self.milliseconds)

    @property
    def p50(self) -> float:
        return statistics.median(self.milliseconds)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.milliseconds, n=100)[98]

    @property
    def worst(self) -> float:
        return max(self.milliseconds)


async def load(url: str, paths: Sequence[str], seconds: float) -> Answered:
    """A request's time counts from the moment when it was due. A request that waits behind a slow
    one on the same connection is therefore slow too."""
    answered = Answered()
    begin = asyncio.get_running_loop().time() + 0.1
    count = round(A_SECOND * seconds)
    requests = [(begin + n / A_SECOND, paths[n % len(paths)]) for n in range(count)]
    await asyncio.gather(
        *(_client(url, requests[n::CONNECTIONS], answered) for n in range(CONNECTIONS))
    )
    return answered


async def _client(url: str, requests: Sequence[tuple[float, str]], answered: Answered) -> None:
    loop = asyncio.get_running_loop()
    connection = Connection(url)
    for due, path in requests:
        await asyncio.sleep(due - loop.time())
        try:
            async with asyncio.timeout(PATIENCE):
                ok = await connection.get(path) == 200
        except (OSError, EOFError, TimeoutError):
            connection.close()
            ok = False
        answered.milliseconds.append((loop.time() - due) * 1000)
        answered.failed += not ok
    connection.close()


class Connection:
    """A kept-alive connection. A client library would add its own millisecond to every time."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname, address.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> int:
        """Returns the answer's status. Raises OSError and EOFError."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port)
        reader, writer = self._streams
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(content_length(head))
        return int(head.split(b" ", 2)[1])

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None


def content_length(head: bytes) -> int:
    return int(re.search(rb"(?i)\r\ncontent-length: (\d+)", head)[1])
