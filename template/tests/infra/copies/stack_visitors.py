# Rung's file: advancing to another stage may change it.
"""Clients of the small shop. They go through the load balancer and count failures."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from types import MappingProxyType
from typing import NamedTuple, Self
from urllib.parse import urlsplit
from uuid import uuid4

from tests.infra.conftest import until

NO_HEADERS: Mapping[str, str] = MappingProxyType({})

PICTURE = bytes(2000)

# At most 300 requests a second in total, because the same two processors also start copies.
VISITORS = 15
PAUSE_SECONDS = 0.05


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class AnswerCutShort(EOFError):
    """The answer has begun, so the load balancer cannot repeat the request."""


class Browser:
    """One kept-alive connection that sends one request after the other."""

    def __init__(self, url: str) -> None:
        self.cookie = ""
        self._url = url
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = NO_HEADERS
    ) -> Answer:
        """Raises OSError, or EOFError when no answer comes."""
        reader, writer = self._line = self._line or await self._connect()
        own = {"Host": urlsplit(self._url).netloc, "Content-Length": len(body)}
        sent = {**own, "Cookie": self.cookie, **headers}
        lines = (f"{name}: {value}\r\n" for name, value in sent.items())
        writer.write(f"{method} {path} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body)
        try:
            answer = await _read(reader)
        except (OSError, EOFError):
            self.close()
            raise
        if answer.headers.get("connection") == "close":
            self.close()
        return answer

    def close(self) -> None:
        if self._line:
            self._line[1].close()
        self._line = None

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        url = urlsplit(self._url)
        return await asyncio.open_connection(url.hostname, url.port)


async def ask(url: str, method: str, path: str, headers: Mapping[str, str] = NO_HEADERS) -> Answer:
    with closing(Browser(url)) as browser:
        return await browser.ask(method, path, b"", headers)


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    try:
        body = await reader.readexactly(int(headers.get("content-length", 0)))
    except EOFError:
        raise AnswerCutShort from None
    return Answer(int(head[0].split()[1]), headers, body)


class Visitors:
    """`async with Visitors(url)`: they come at once, and have left at the end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._is_over = False
        self.requests = 0
        self.ordered: set[str] = set()
        self.failures: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        self._visits = [asyncio.create_task(self._visit()) for _ in range(VISITORS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._is_over = True
        await asyncio.gather(*self._visits)

    async def until(self, requests: int) -> None:
        await until(lambda: self.requests >= requests)

    async def some_more(self) -> None:
        await self.until(self.requests + 10 * VISITORS)

    async def _visit(self) -> None:
        with closing(Browser(self._url)) as browser:
            while not self._is_over:
                await self._log_in(browser)
                for _ in range(3):
                    await self._ask(browser, "GET", "/products")
                    await self._ask(browser, "GET", "/products")
                    await self._ask(browser, "GET", "/me")
                    await self._order(browser)
                await self._upload(browser)

    async def _log_in(self, browser: Browser) -> None:
        if answer := await self._ask(browser, "POST", f"/login/{uuid4()}"):
            browser.cookie = answer.headers["set-cookie"].split(";")[0]

    async def _order(self, browser: Browser) -> None:
        key = str(uuid4())
        if await self._ask(browser, "POST", f"/orders/{key}"):
            self.ordered.add(key)

    async def _upload(self, browser: Browser) -> None:
        path = f"/pictures/{uuid4()}"
        if started := await self._ask(browser, "POST", f"{path}?size={len(PICTURE)}"):
            request = json.loads(started.body)
            url = urlsplit(request["url"])
            # The URL may lead to S3 instead of the shop.
            with closing(Browser(f"{url.scheme}://{url.netloc}")) as storage:
                target = f"{url.path}?{url.query}"
                await self._ask(storage, "PUT", target, PICTURE, request["headers"])
            stored = await self._ask(browser, "GET", f"{path}/size")
            assert stored is None or json.loads(stored.body) == len(PICTURE)

    async def _ask(
        self,
        browser: Browser,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Answer | None:
        """Returns None for a failed request, and counts it."""
        await asyncio.sleep(PAUSE_SECONDS)
        self.requests += 1
        try:
            answer = await browser.ask(method, path, body, headers)
        except (OSError, EOFError) as error:
            self.failures[f"{method}: {error!r}"] += 1
            return None
        if answer.status >= 400:
            self.failures[f"{method} {urlsplit(path).path.split('/')[1]}: {answer.status}"] += 1
            return None
        return answer
