"""Shared by the benchmarks that ask an app in their own process: no network, server or client."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

from starlette.types import ASGIApp, Message


class Route(NamedTuple):
    """A GET, again and again."""

    app: ASGIApp
    path: str
    query: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def ask(self) -> bytes:
        status, _, body = await asked(self.app, "GET", self.path, self.query, self.headers)
        if status != 200:
            raise SystemExit(f"{self.path} answered {status}: {body.decode()}")
        return body


async def routes(app: ASGIApp) -> dict[str, Route]:
    """One product, a page of them, and the account of somebody who is logged in."""
    page = Route(app, "/products", b"limit=20")
    [product, *_] = json.loads(await page.ask())["products"]
    cookie = await _cookie_of_somebody(app)
    return {
        "item": Route(app, f"/products/{product['id']}"),
        "page": page,
        "me": Route(app, "/me", headers=((b"cookie", cookie),)),
    }


async def asked(
    app: ASGIApp,
    method: str,
    path: str,
    query: bytes = b"",
    headers: tuple[tuple[bytes, bytes], ...] = (),
    body: bytes = b"",
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer."""
    started: Mapping[str, Any] = {}
    parts = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        nonlocal started
        if message["type"] == "http.response.start":
            started = message
        else:
            parts.append(message["body"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "root_path": "",
        "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }
    await app(scope, receive, send)
    return started["status"], started["headers"], b"".join(parts)


async def _cookie_of_somebody(app: ASGIApp) -> bytes:
    person = {"email": f"{uuid4()}@example.com", "password": "correct horse battery staple"}
    body = json.dumps(person).encode()
    length = ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    status, headers, answer = await asked(app, "POST", "/accounts", headers=length, body=body)
    if status != 201:
        raise SystemExit(f"POST /accounts answered {status}: {answer.decode()}")
    return next(value for name, value in headers if name == b"set-cookie").split(b";")[0]
