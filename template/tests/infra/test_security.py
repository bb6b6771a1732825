# Rung's file: advancing to another stage may change it.
"""Headers on every answer, requests from other sites, limits, and headers that nobody expects."""

import re
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.routing import APIRoute
from httpx import AsyncClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from app.infra.failures import Unavailable
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app

GUIDE = Path("docs/guide/names.md").read_text()


class Note(BaseModel):
    text: str


@pytest.fixture
def app(bare: FastAPI) -> FastAPI:
    return with_notes(bare)


@pytest.fixture
def notes_with_cache(services: Services, monkeypatch: pytest.MonkeyPatch) -> FastAPI:
    """A cache's middleware reads headers too, at the stages that have one. This cache is away."""
    monkeypatch.setenv("CACHE_URL", "redis://127.0.0.1:1/0")
    return with_notes(bare_app())


def with_notes(bare: FastAPI) -> FastAPI:
    @bare.get("/notes")
    async def read() -> None: ...

    @bare.post("/notes")
    async def write(note: Note) -> None: ...

    @bare.put("/notes")
    @bare.patch("/notes")
    @bare.delete("/notes")
    async def change() -> None: ...

    @bare.get("/cached")
    async def cached(response: Response) -> None:
        response.headers["Cache-Control"] = "max-age=60"

    return bare


async def test_every_answer_carries_the_security_headers(client: AsyncClient) -> None:
    for path in ("/notes", "/nowhere"):
        headers = (await client.get(path)).headers
        assert headers["cache-control"] == "no-store"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert headers["strict-transport-security"] == "max-age=31536000"
        assert headers["x-content-type-options"] == "nosniff"


async def test_an_answer_can_set_a_header_itself(client: AsyncClient) -> None:
    headers = (await client.get("/cached")).headers

    assert headers.get_list("cache-control") == ["max-age=60"]


async def test_the_documentation_can_load_its_scripts(client: AsyncClient) -> None:
    headers = (await client.get("/docs")).headers

    assert headers.get_list("content-security-policy") == ["frame-ancestors 'none'"]


async def test_a_redirect_never_uses_the_host_header_of_a_request(client: AsyncClient) -> None:
    answer = await client.get("/notes/", headers={"Host": "evil.example"})

    assert answer.status_code == 404
    assert "location" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": "https://shop.test.evil.test"},
        {"Origin": "https://shop.test", "Sec-Fetch-Site": "cross-site"},
    ],
)
async def test_a_write_from_another_site_is_refused(
    client: AsyncClient, headers: dict[str, str]
) -> None:
    refused = await client.post("/notes", json={"text": "hi"}, headers=headers)
    assert refused.status_code == 403
    assert refused.headers["content-type"] == "application/problem+json"
    assert (await client.get("/notes", headers=headers)).status_code == 200
    for method in ("PUT", "PATCH", "DELETE"):
        assert (await client.request(method, "/notes", headers=headers)).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://shop.test"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://shop.test"},
    ],
)
async def test_a_write_from_this_site_or_from_no_browser_is_accepted(
    client: AsyncClient, headers: dict[str, str]
) -> None:
    answer = await client.post("/notes", json={"text": "hi"}, headers=headers)

    assert answer.status_code == 200


@pytest.mark.parametrize(("size", "status"), [(60_000, 200), (70_000, 413)])
async def test_a_body_is_read_up_to_64_kib(client: AsyncClient, size: int, status: int) -> None:
    declared = await client.post("/notes", json={"text": "x" * size})
    assert declared.status_code == status

    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"text": "'
        for _ in range(size // 1000):
            yield b"x" * 1000
        yield b'"}'

    in_pieces = {"content-type": "application/json"}
    chunked = await client.post("/notes", content=pieces(), headers=in_pieces)
    assert chunked.status_code == status


@pytest.mark.parametrize("path", ["/notes", "/counted"])
async def test_a_large_body_is_a_413_also_within_a_middleware_that_joins_tasks(
    app: FastAPI, serve: Serve, path: str
) -> None:
    @app.post("/counted")
    async def count(request: Request) -> int:
        return len(await request.body())

    app.user_middleware.append(
        Middleware(BaseHTTPMiddleware, lambda request, go_on: go_on(request))
    )
    async with serve(app) as client:
        assert (await client.post(path, json={"text": "x" * 60_000})).status_code == 200
        answer = await client.post(path, json={"text": "x" * 70_000})

    assert answer.status_code == 413
    assert answer.json()["title"] == "The request body is too large"
    assert answer.headers["x-request-id"]


async def test_a_router_of_the_guide_takes_larger_bodies(bare: FastAPI, serve: Serve) -> None:
    [example] = re.findall(r"^```python\n(class LargeBody.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"Any": Any, "Callable": Callable, "Coroutine": Coroutine}
    names |= {"APIRoute": APIRoute, "Request": Request, "Response": Response}
    exec(example, names)  # noqa: S102
    router = APIRouter(route_class=names["LargeBody"])

    @router.post("/reports")
    async def write(note: Note) -> int:
        return len(note.text)

    bare.include_router(router)
    async with serve(bare) as client:
        assert (await client.post("/reports", json={"text": "x" * 900_000})).json() == 900_000
        assert (await client.post("/reports", json={"text": "x" * 1_000_000})).status_code == 413


# The headers that the middleware of any stage reads, and values that break careless parsers.
READ_HEADERS = [
    *("accept", "accept-encoding", "access-control-request-headers"),
    *("access-control-request-method", "authorization", "baggage", "connection", "content-length"),
    *("content-type", "cookie", "expect", "forwarded", "host", "if-modified-since"),
    *("if-none-match", "if-range", "origin", "range", "read-after", "referer"),
    *("sec-fetch-site", "traceparent", "tracestate", "transfer-encoding", "x-api-key"),
    *("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id"),
]
AWKWARD = [
    *("http://[", "https://[::1", "//", "null", "%00", ";=;", "a=b=c", '"', ", ,", "\x00", "-1"),
    *("1.f.x", f"1.{'f' * 5000}.x", "__Host-wrote-1=1.f.x", f"__Host-wrote-1=1.{'f' * 5000}.x"),
    *("__Host-session=x", "Bearer x", f"00-{'0' * 32}-{'f' * 16}-01", "x" * 8000, "ü"),
]
HEX = st.text("0123456789abcdef.-", max_size=80)
TEXTS = st.one_of(st.sampled_from(AWKWARD), st.text(max_size=60), HEX)
VALUES = st.one_of(TEXTS.map(str.encode), st.binary(max_size=60))


async def test_no_header_value_causes_a_server_error(
    notes_with_cache: FastAPI, serve: Serve
) -> None:
    """Some headers come twice. No honest client does that."""
    tried: list[list[tuple[str, bytes]]] = []

    @settings(max_examples=150, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.tuples(st.sampled_from(READ_HEADERS), VALUES), min_size=1, max_size=5))
    def collect(headers: list[tuple[str, bytes]]) -> None:
        tried.append(headers)

    collect()
    awkward = [value.encode() for value in AWKWARD]
    tried += [[(name, value)] for name in READ_HEADERS for value in awkward]
    tried += [[(name, value), (name, b"x")] for name in READ_HEADERS for value in awkward[:3]]
    async with serve(notes_with_cache) as client:
        for number, headers in enumerate(tried):
            method = ("GET", "PUT", "OPTIONS")[number % 3]
            raw = [(name.encode(), value) for name, value in headers]
            answer = await client.request(method, "/notes", headers=raw)
            assert answer.status_code < 500, headers
            assert answer.headers["x-request-id"]
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("the password is hunter2"), 500),
        (HTTPException(402, "Pay first"), 402),
        (Unavailable("the password is hunter2"), 503),
    ],
)
async def test_an_error_in_a_middleware_is_answered_like_any_other(
    app: FastAPI, serve: Serve, error: Exception, status: int
) -> None:
    class Broken:
        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                raise error
            await self.app(scope, receive, send)

    app.user_middleware.append(Middleware(Broken))
    async with serve(app) as client:
        answer = await client.get("/notes")

    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-request-id"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "hunter2" not in answer.text
