"""A client with a cookie or a token, on a connection that it keeps. Cheaper than a library's."""

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

PATIENCE = 30.0  # seconds


class NoAnswerError(Exception):
    """The connection was closed, or nothing came in time."""


@dataclass
class Answer:
    status: int
    head: str
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def header(self, name: str) -> str:
        found = re.search(rf"(?im)^{name}: *(.*?)\r?$", self.head)
        return found[1] if found else ""


class Browser:
    def __init__(self, base: str, address: str) -> None:
        self.base = base
        self._address = address  # of 127.0.0.0/8: the app counts logins by address
        self.cookies: dict[str, str] = {}
        self.token = ""
        self._streams: dict[str, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        address = urlsplit(path if "://" in path else self.base + path)
        host = address.netloc
        target = address.path + (f"?{address.query}" if address.query else "")
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
        if host == urlsplit(self.base).netloc:
            if self.token:
                lines.append(f"Authorization: Bearer {self.token}")
            if self.cookies:
                pairs = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
                lines.append(f"Cookie: {pairs}")
        if body or method in {"POST", "PUT"}:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        request = "\r\n".join(lines).encode() + b"\r\n\r\n" + body
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._sent(host, request)
        except (OSError, EOFError, TimeoutError) as error:
            self._close(host)
            raise NoAnswerError(repr(error)) from error
        self._keep_cookies(answer)
        return answer

    async def _sent(self, host: str, request: bytes) -> Answer:
        kept = self._streams.get(host)
        if kept is None or kept[0].at_eof():
            self._close(host)
            name, _, port = host.partition(":")
            kept = await asyncio.open_connection(name, int(port), local_addr=(self._address, 0))
            self._streams[host] = kept
        reader, writer = kept
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"(?im)^content-length: *(\d+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        if re.search(r"(?im)^connection: *close", head):
            self._close(host)
        return Answer(int(head.split(" ", 2)[1]), head, body)

    def _keep_cookies(self, answer: Answer) -> None:
        for line in re.findall(r"(?im)^set-cookie: *(.*?)\r?$", answer.head):
            pair, *attributes = line.split(";")
            name, _, value = pair.partition("=")
            if any(one.strip().lower() == "max-age=0" for one in attributes):
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value

    def _close(self, host: str) -> None:
        if kept := self._streams.pop(host, None):
            kept[1].close()

    def close(self) -> None:
        for host in list(self._streams):
            self._close(host)
