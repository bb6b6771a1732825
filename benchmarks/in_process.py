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


class Order(NamedTuple):
    """An order of two products, again and again with a new key."""

    app: ASGIApp
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    async def ask(self) -> bytes:
        key = (b"idempotency-key", uuid4().hex.encode())
        headers = (*self.headers, key)
        status, _, body = await asked(self.app, "POST", "/orders", headers=headers, body=self.body)
        if status != 201:
            raise SystemExit(f"POST /orders answered {status}: {body.decode()}")
        return body


async def routes(app: ASGIApp) -> dict[str, Route | Order]:
    """One product, a page of them, the account of a logged-in person, and an order."""
    page = Route(app, "/products", b"limit=20")
    [product, other, *_] = json.loads(await page.ask())["products"]
    cookie = (b"cookie", await _cookie_of_somebody(app))
    wanted = [{"product_id": one["id"], "quantity": 1} for one in (product, other)]
    body = json.dumps({"items": wanted}).encode()
    return {
        "item": Route(app, f"/products/{product['id']}"),
        "page": page,
        "me": Route(app, "/me", headers=(cookie,)),
        "order": Order(app, (cookie, *_json(body)), body),
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
    status, headers, answer = await asked(app, "POST", "/accounts", headers=_json(body), body=body)
    if status != 201:
        raise SystemExit(f"POST /accounts answered {status}: {answer.decode()}")
    return next(value for name, value in headers if name == b"set-cookie").split(b";")[0]


def _json(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
