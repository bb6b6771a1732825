"""Floods a service from one address: python -m floods.flooder NAME URL"""

import asyncio
import sys
import time
from contextlib import suppress

import httpx

FLOODER = ("127.0.0.2", 0)
MIB = 2**20

POST = b"POST /session HTTP/1.1\r\nHost: shop\r\nContent-Type: application/json\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


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

    async def tiny_chunks(self) -> None:
        await self._endless(CHUNKED, b"1\r\nx\r\n" * 100_000, 350)

    async def pipelined_requests(self) -> None:
        await self._endless(b"", b"GET /live HTTP/1.1\r\nHost: shop\r\n\r\n" * 25_000, 200)

    async def a_body_of_200_mib(self) -> None:
        await self._endless(CHUNKED, b"100000\r\n" + b"a" * MIB + b"\r\n", 200)

    async def registrations(self) -> None:
        await self._posts("/accounts")

    async def guesses(self) -> None:
        await self._posts("/session")

    async def _posts(self, path: str) -> None:
        flooding = httpx.AsyncHTTPTransport(local_address=FLOODER[0])
        async with httpx.AsyncClient(base_url=self._url, transport=flooding, timeout=300) as client:

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


if __name__ == "__main__":
    name, url = sys.argv[1:]
    print("Flooding", flush=True)
    asyncio.run(getattr(Flooder(url), name)())
