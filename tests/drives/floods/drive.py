"""Floods the service from one address while others use it, and says how they fared.

Runs in a generated repo of any stage: python -m floods.drive
"""

import asyncio
import json
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import httpx
from leaks.drive import Shop

SECONDS = float(os.environ.get("SECONDS", "2"))
REQUESTS_A_SECOND = 50

FLOODER = ("127.0.0.2", 0)
MIB = 2**20

POST = b"POST /session HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


MIB_GROWN = 20


class Flooder:
    def __init__(self, url: str) -> None:
        self._port = httpx.URL(url).port
        self._url = url

    async def slow_bodies(self) -> None:
        head = POST + b"Content-Length: 60000\r\n\r\n"
        await self._many(450, head, b"x")

    async def slow_chunks(self) -> None:
        await self._many(450, CHUNKED, b"1\r\nx\r\n")

    async def slow_headers(self) -> None:
        await self._many(450, b"GET /products HTTP/1.1\r\n", b"a: b\r\n")

    async def idle_connections(self) -> None:
        await self._many(1000, b"", b"")

    async def clients_that_read_no_answer(self) -> None:
        await self._many(200, b"GET /openapi.json HTTP/1.1\r\nHost: shop\r\n\r\n" * 5, b"")

    async def a_header_of_200_mib(self) -> None:
        await self._endless(b"GET /products HTTP/1.1\r\nHost: shop\r\nlong: ", b"a" * MIB, 200)

    async def a_million_headers(self) -> None:
        await self._endless(b"GET /products HTTP/1.1\r\nHost: shop\r\n", b"a: b\r\n" * 10000, 100)

    async def a_path_of_200_mib(self) -> None:
        await self._endless(b"GET /", b"a" * MIB, 200)

    async def a_chunk_extension_of_200_mib(self) -> None:
        await self._endless(CHUNKED + b"1;", b"a" * MIB, 200)

    async def trailers_of_200_mib(self) -> None:
        await self._endless(CHUNKED + b"0\r\n", b"a: b\r\n" * 100_000, 350)

    async def a_body_of_200_mib(self) -> None:
        await self._endless(CHUNKED, b"100000\r\n" + b"a" * MIB + b"\r\n", 200)

    async def registrations(self) -> None:
        await self._posts("/accounts")

    async def guesses(self) -> None:
        await self._posts("/session")

    async def _posts(self, path: str) -> None:
        flooding = httpx.AsyncHTTPTransport(local_address=FLOODER[0])
        async with httpx.AsyncClient(base_url=self._url, transport=flooding, timeout=60) as client:

            async def post_on(number: int) -> None:
                while True:
                    number += 1000
                    email = f"{time.time_ns()}@example.com"
                    person = {"email": email, "password": f"the flood {number}"}
                    with suppress(httpx.TransportError):
                        await client.post(path, json=person)

            await asyncio.gather(*(post_on(number) for number in range(20)))

    async def _many(self, number: int, head: bytes, drop: bytes) -> None:
        await asyncio.gather(*(self._hold(head, drop) for _ in range(number)))

    async def _hold(self, head: bytes, drop: bytes) -> None:
        """Connects again whenever it is refused."""
        while True:
            with suppress(OSError):
                reader, writer = await self._connect()
                try:
                    writer.write(head)
                    while not reader.at_eof():
                        writer.write(drop)
                        await asyncio.sleep(1)
                finally:
                    writer.close()
            await asyncio.sleep(0.5)

    async def _endless(self, head: bytes, part: bytes, parts: int) -> None:
        while True:
            with suppress(OSError):
                reader, writer = await self._connect()
                try:
                    writer.write(head)
                    for _ in range(parts):
                        writer.write(part)
                        await writer.drain()
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(0.1)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, local_addr=FLOODER)


class Others:
    """People who use the service meanwhile."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.failed: Counter[str] = Counter()
        self.seconds: list[float] = []

    async def use_it(self) -> None:
        end = time.monotonic() + SECONDS
        using: list[asyncio.Task[None]] = []
        while time.monotonic() < end:
            path = "/me" if len(using) % 2 else "/products"
            using.append(asyncio.create_task(self._ask(path)))
            await asyncio.sleep(1 / REQUESTS_A_SECOND)
        await asyncio.gather(*using)

    async def _ask(self, path: str) -> None:
        begun = time.monotonic()
        try:
            answer = await self._client.get(path)
        except httpx.TransportError as error:
            self.failed[repr(error)] += 1
        else:
            if answer.status_code != 200:
                self.failed[f"{path}: {answer.status_code}"] += 1
        self.seconds.append(time.monotonic() - begun)

    @property
    def p99(self) -> float:
        return statistics.quantiles(self.seconds, n=100)[-1]


async def among_others(
    client: httpx.AsyncClient, flood: Callable[[], Awaitable[None]] | None = None
) -> Others:
    others = Others(client)
    flooding = asyncio.ensure_future(flood()) if flood else None
    await asyncio.sleep(0.5)
    await others.use_it()
    if flooding:
        assert not flooding.done(), flooding.exception()
        flooding.cancel()
        with suppress(asyncio.CancelledError):
            await flooding
    return others


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    [kib] = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kib) / 1024


async def flooded_by(
    name: str, client: httpx.AsyncClient, flooder: "Flooder", pid: int
) -> tuple[Others, float]:
    """What others saw of it, and the memory in MiB that the app has not given back."""
    before = resident_mib(pid)
    others = await among_others(client, getattr(flooder, name))
    for _ in range(50):
        grown = resident_mib(pid) - before
        if grown < MIB_GROWN:
            break
        await asyncio.sleep(0.2)
    return others, grown


async def flooded(shop: Shop) -> dict[str, Any]:
    ada = {"email": "ada@example.com", "password": "the secret of Ada"}
    report: dict[str, Any] = {}
    async with httpx.AsyncClient(base_url=shop.url, timeout=30) as client:
        token = (await client.post("/accounts", json=ada)).headers["set-cookie"].partition(";")[0]
        client.cookies.clear()
        client.headers["Cookie"] = token
        flooder = Flooder(shop.url)
        names = [name for name in vars(Flooder) if not name.startswith("_")]
        await among_others(client, flooder.guesses)  # everything is loaded
        quiet = await among_others(client)
        assert quiet.failed == {}, quiet.failed
        for name in names if len(sys.argv) < 2 else sys.argv[1:]:
            for _ in range(2):  # what the allocator keeps of a first flood serves the second
                others, grown = await flooded_by(name, client, flooder, shop.process.pid)
                if grown < MIB_GROWN:
                    break
            report[name] = {
                "requests": len(others.seconds),
                "failed": others.failed,
                "p99 ms": round(others.p99 * 1000),
                "times the quiet p99": round(others.p99 / quiet.p99, 1),
                "grown MiB": round(grown, 1),
            }
    return report


def main() -> None:
    with ExitStack() as stack:
        shop = Shop(stack, (sys.executable, "-m", "app.infra.serve"))
        print(json.dumps(asyncio.run(flooded(shop))))


if __name__ == "__main__":
    main()
