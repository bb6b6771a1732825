# Rung's file: advancing to another stage may change it.
"""The server in production: the proxies that it trusts, and the limits of a connection."""

import asyncio
import json
import math
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import PlainTextResponse, StreamingResponse
from uvicorn.server import ServerState

from app.infra import http_limits, logs, serve
from tests.infra.conftest import run_python, until

CHUNKED = b"POST /names HTTP/1.1\r\nhost: shop\r\ntransfer-encoding: chunked\r\n\r\n"

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}

STOPPED_WHILE_IT_BEGINS = """
import os, runpy, signal, sys

class Stop:
    def find_spec(self, name, *_):
        if name == "fastapi":
            signal.raise_signal(signal.SIGTERM)

sys.meta_path.insert(0, Stop())
os.getpid = lambda: 1
runpy.run_module("app.infra.serve", run_name="__main__")
"""


@pytest.fixture
def echo() -> FastAPI:
    app = FastAPI()

    @app.get("/caller")
    async def caller(request: Request) -> str:
        return f"{request.url.scheme} {request.client.host if request.client else 'unknown'}"

    @app.post("/length")
    async def length(request: Request) -> int:
        return len(await request.body())

    @app.post("/names")
    async def names(request: Request) -> list[str]:
        await request.body()
        return list(request.headers)

    @app.get("/limited", status_code=429)
    async def limited() -> str:
        return "too often"

    @app.get("/page")
    async def page() -> str:
        return "page" * 5_000

    @app.get("/long")
    async def long() -> str:
        return "long" * 4_000_000

    return app


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What the server reads of all requests, in its pieces."""
    parts: list[bytes] = []
    read = http_limits.LimitedHttp._part_received

    def noted(self: http_limits.LimitedHttp, part: bytes) -> None:
        parts.append(part)
        read(self, part)

    monkeypatch.setattr(http_limits.LimitedHttp, "_part_received", noted)
    return parts


async def asked_by_a_proxy(
    app: FastAPI, headers: dict[str, str] | list[tuple[str, str]]
) -> httpx.Response:
    config = serve.configured()
    serve.load(config, app)
    proxy = httpx.ASGITransport(config.loaded_app, client=("127.0.0.1", 50000))
    async with httpx.AsyncClient(transport=proxy, base_url="http://shop.test") as client:
        return await client.get("/caller", headers=headers)


@asynccontextmanager
async def connected(
    app: FastAPI,
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    config = serve.configured()
    serve.load(config, app)
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: http_limits.LimitedHttp(config, state, {}), "127.0.0.1", 0
    )
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            async with asyncio.timeout(300):
                yield reader, writer
        finally:
            writer.close()


async def test_without_trusted_proxies_no_client_can_set_its_address(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORWARDED_ALLOW_IPS", raising=False)

    assert (await asked_by_a_proxy(echo, FORWARDED)).json() == "http 127.0.0.1"


@pytest.mark.parametrize("trusted", ["*", "127.0.0.1", "10.0.0.0/8, 127.0.0.0/8"])
async def test_a_trusted_proxy_names_the_client(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, trusted: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)

    assert (await asked_by_a_proxy(echo, FORWARDED)).json() == "https 203.0.113.9"


@pytest.mark.parametrize("trusted", ["*", "127.0.0.0/8"])
@pytest.mark.parametrize("end", ["203.0.113.9", " 203.0.113.9", "203.0.113.9:4711"])
@pytest.mark.parametrize("invented", ["198.51.100.1", "9" * 8000, "a, b, ::1", ""])
async def test_an_address_that_the_client_invents_before_the_proxys_own_is_ignored(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, trusted: str, end: str, invented: str
) -> None:
    """Heroku's router and AWS' load balancer append the client's address to what it has sent."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", trusted)

    one_line = [("X-Forwarded-For", f"{invented},{end}")]
    two_lines = [("X-Forwarded-For", invented), ("X-Forwarded-For", end)]
    for headers in (one_line, two_lines):
        assert (await asked_by_a_proxy(echo, headers)).json() == "http 203.0.113.9"


@pytest.mark.parametrize(
    ("lines", "scheme"),
    [
        (["https"], "https"),
        (["https,http"], "https"),
        (["https , http,http"], "https"),
        (["https", "http"], "https"),
        (["http,https"], "http"),
        ([",https"], "http"),
        (["ftp, https"], "http"),
    ],
)
async def test_the_first_scheme_of_a_chain_of_proxies_is_the_clients(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, lines: list[str], scheme: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "127.0.0.1")
    headers = "".join(f"x-forwarded-proto: {line}\r\n" for line in lines)
    async with connected(echo) as (reader, writer):
        writer.write(f"GET /caller HTTP/1.1\r\nhost: shop\r\n{headers}\r\n".encode())
        await reader.readuntil(b"\r\n\r\n")
        assert (await reader.readuntil(b" ")).decode() == f'"{scheme} '


async def test_a_text_that_is_too_long_for_an_address_counts_as_unknown(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")

    answer = await asked_by_a_proxy(echo, {"X-Forwarded-For": "9" * 8000})

    assert answer.json() == "http unknown"


@pytest.mark.parametrize("wrong", ["10.0.0.1/8", "proxy", "*, 10.0.0.1", "10.0.0.0/8;10.1.0.0/8"])
def test_a_malformed_list_of_proxies_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", wrong)

    with pytest.raises(SystemExit, match="FORWARDED_ALLOW_IPS has a wrong item: "):
        serve.configured()


@pytest.mark.parametrize("wrong", ['"0.0.0.0"', "10.0.0.300", "a..b"])
def test_an_address_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, wrong: str) -> None:
    monkeypatch.setenv("LISTEN_ADDRESS", wrong)

    with pytest.raises(SystemExit, match="LISTEN_ADDRESS is "):
        serve.configured()


@pytest.mark.parametrize("given", ["", "auto", "3"])
def test_an_app_is_one_process_whatever_web_concurrency_says(
    monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", given)

    assert serve.configured().workers == 1


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
async def test_the_app_listens_on_every_address(
    monkeypatch: pytest.MonkeyPatch, family: socket.AddressFamily
) -> None:
    monkeypatch.delenv("LISTEN_ADDRESS", raising=False)
    try:
        socket.socket(family).close()
    except OSError as error:
        pytest.skip(str(error))

    listening = await asyncio.get_running_loop().create_server(
        asyncio.Protocol, serve.configured().host, 0
    )

    async with listening:
        assert family in {one.family for one in listening.sockets}


async def test_a_request_may_arrive_in_one_piece_or_byte_by_byte(echo: FastAPI) -> None:
    async with connected(echo) as (reader, writer):
        request = b"POST /length HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc"
        for parts in ([request], [request[n : n + 1] for n in range(len(request))]):
            for part in parts:
                writer.write(part)
                await asyncio.sleep(0)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(1) == b"3"


@pytest.mark.parametrize("part", [b"a" * 1024, b"a: b\r\n" * 100])
async def test_endless_headers_are_refused(echo: FastAPI, part: bytes) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /caller HTTP/1.1\r\nlong: ")
        writer.write(part * (http_limits.MAX_HEAD_BYTES // len(part) + 1))
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("begin", [b"1;", b"0\r\nlong: ", b"0\r\n", b"1\r\nx\r\n1;"])
async def test_endless_chunks_and_trailers_are_refused(echo: FastAPI, begin: bytes) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(CHUNKED + begin)
        await asyncio.sleep(0.1)
        part = b"a: b\r\n" if begin == b"0\r\n" else b"a"
        writer.write(part * (http_limits.MAX_HEAD_BYTES // len(part) + 1))
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 431 ")


MALFORMED = [
    b"CONNECT shop:443 HTTP/1.1\r\nhost: shop\r\n\r\n",
    *(
        b"\x00",
        b"\xff" * 100,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
    ),
    *(
        b"GET /caller HTTP/1.1\r\n%b\r\n\r\n" % header
        for header in (b": x", b"a b: c", b"a\x00: b")
    ),
    b"GET /caller HTTP/1.1\r\naccept: */*\r\n\r\n",
    *(
        b"GET /caller HTTP/1.1\r\nhost: shop\r\n%b: x\r\n%b: x\r\n\r\n" % (name, name.upper())
        for name in sorted(http_limits.SINGLE_FIELDS)
    ),
    *(b"GET %b HTTP/1.1\r\nhost: shop\r\n\r\n" % path for path in (b"\xc3\xbc", b"a:b", b"/\x00")),
    *(
        b"POST /names HTTP/1.1\r\n%b\r\n\r\n" % header
        for header in (
            b"content-length: -1",
            b"content-length: 1\r\ncontent-length: 2",
            b"content-length: 1e3",
            b"content-length: 3\r\ntransfer-encoding: chunked",
            b"transfer-encoding: chunked, x",
        )
    ),
    *(CHUNKED + chunk for chunk in (b"-1\r\n", b"g\r\n", b"f" * 17 + b"\r\n", b"1\r\nxy\r\n")),
]


async def test_http_1_0_needs_no_host_and_lists_may_have_several_lines(echo: FastAPI) -> None:
    lists = b"accept: a/b\r\naccept: c/d\r\ncookie: a=1\r\ncookie: b=2\r\n\r\n"
    for request in (b"GET /caller HTTP/1.0\r\n", b"GET /caller HTTP/1.1\r\nhost: shop\r\n"):
        async with connected(echo) as (reader, writer):
            writer.write(request + lists)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


HEAD = b"GET /caller HTTP/1.1\r\nhost: shop\r\n"


@pytest.mark.parametrize(
    ("begin", "end"), [(HEAD, b""), (HEAD, b"\r\n"), (CHUNKED + b"0\r\n", b"")]
)
async def test_more_headers_or_trailers_than_any_client_sends_are_refused(
    echo: FastAPI, begin: bytes, end: bytes
) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(begin + b"a: b\r\n" * (http_limits.MAX_FIELDS + 1) + end)
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize(("more", "status"), [(0, b"200"), (1, b"431")])
async def test_more_parameters_than_any_client_sends_are_refused(
    echo: FastAPI, more: int, status: bytes
) -> None:
    query = b"a&" * (http_limits.MAX_PARAMETERS + more)
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /caller?%b HTTP/1.1\r\nhost: shop\r\n\r\n" % query)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize("request_", MALFORMED)
async def test_invalid_http_is_a_400_with_security_headers(echo: FastAPI, request_: bytes) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(request_)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"x-content-type-options: nosniff\r\n" in head
    assert b"x-request-id: " in head
    assert json.loads(body)["title"] == "Bad Request"


@pytest.mark.parametrize(
    ("fields", "detail"),
    [
        (b"accept: */*", "Send the header Host."),
        (b"host: a\r\norigin: b\r\norigin: c", "Send this header once: origin"),
        (b"host: a\r\nb c: d", "Invalid header token"),
    ],
)
async def test_a_refusal_says_what_to_do(echo: FastAPI, fields: bytes, detail: str) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /caller HTTP/1.1\r\n%b\r\n\r\n" % fields)
        assert json.loads((await reader.read()).partition(b"\r\n\r\n")[2])["detail"] == detail


HALF = b"GET / HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("next_request", "is_refused_by"),
    [
        (b"no HTTP\r\n\r\n", "_refuse"),
        (HALF + b"host: a\r\nhost: b\r\n\r\n", "_refuse"),
        (HALF + b"a: b\r\n" * 201, "_refuse"),
        (HALF, "_time_is_over"),
        (HALF, "eof_received"),
    ],
)
async def test_a_refused_request_never_takes_the_answer_of_the_one_before(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, next_request: bytes, is_refused_by: str
) -> None:
    """It may be the rest of a body whose Content-Length counts characters instead of bytes."""
    monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.01)
    refused = asyncio.Event()
    refuse = getattr(http_limits.LimitedHttp, is_refused_by)

    def noted(self: http_limits.LimitedHttp, *args: str) -> object:
        refused.set()
        return refuse(self, *args)

    monkeypatch.setattr(http_limits.LimitedHttp, is_refused_by, noted)

    @echo.post("/orders", status_code=201)
    async def order() -> str:
        await refused.wait()
        return "ordered"

    async with connected(echo) as (reader, writer):
        writer.write(b"POST /orders HTTP/1.1\r\nhost: shop\r\ncontent-length: 2\r\n\r\n{}")
        writer.write(next_request)
        if is_refused_by == "eof_received":
            writer.write_eof()
        answer = await reader.read()

    assert answer.startswith(b"HTTP/1.1 201 ")
    assert answer.endswith(b'\r\n\r\n"ordered"')


async def test_a_body_that_is_refused_after_its_answer_gets_no_second_one(echo: FastAPI) -> None:
    async with connected(echo) as (reader, writer):
        writer.write(CHUNKED.replace(b"/names", b"/nowhere"))
        assert b"404" in await reader.readuntil(b"}")
        writer.write(b"no chunk\r\n")
        assert await reader.read() == b""


async def test_a_long_body_in_chunks_is_read_and_its_trailers_are_dropped(echo: FastAPI) -> None:
    async with connected(echo) as (reader, writer):
        body = (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 5
        writer.write(CHUNKED + body + b"0\r\nauthorization: Bearer stolen\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readuntil(b"]") == b'["host","transfer-encoding"]'


async def test_a_body_in_tiny_chunks_is_read_whole(echo: FastAPI) -> None:
    async with connected(echo) as (reader, writer):
        body = b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n"
        writer.write(CHUNKED.replace(b"/names", b"/length") + body)
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(5) == b"40000"


async def test_other_requests_are_answered_between_parts_of_a_body_in_tiny_chunks(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    monkeypatch.setattr(http_limits, "REST_SECONDS", 3600)
    monkeypatch.setattr(http_limits, "SILENCE_SECONDS", 0.2)  # ends that connection
    request = b"GET /caller HTTP/1.1\r\nhost: shop\r\n\r\n"
    async with connected(echo) as (_, writer), connected(echo) as (reader, other):
        writer.write(CHUNKED + b"1\r\nx\r\n" * 100_000)
        for _ in range(20):
            other.write(request)
            assert (await reader.readuntil(b'127.0.0.1"')).startswith(b"HTTP/1.1 200 ")

    assert len([part for part in parts if part != request]) == 1


async def test_a_client_that_ends_its_direction_gets_the_answers_to_whole_requests(
    echo: FastAPI,
) -> None:
    get = b"GET /caller HTTP/1.1\r\nhost: shop\r\n\r\n"
    post = b"POST /length HTTP/1.1\r\nhost: shop\r\ncontent-length: 3\r\n\r\nabc"
    for requests, answers in (
        (get, [b'"http 127.0.0.1"']),
        (post, [b"3"]),
        (get + post + get, [b'"http 127.0.0.1"', b"3", b'"http 127.0.0.1"']),
        (get[:-2], []),
        (post[:-1], []),
        (b"", []),
    ):
        async with connected(echo) as (reader, writer):
            writer.write(requests)
            writer.write_eof()
            heads_and_bodies = (await reader.read()).split(b"\r\n\r\n")[1:]
        assert [part.partition(b"HTTP/1.1")[0] for part in heads_and_bodies] == answers


async def test_after_its_answer_a_client_has_a_short_time_for_the_rest_of_its_body(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "REST_OF_BODY_SECONDS", 60)
    early = b"POST /nowhere HTTP/1.1\r\nhost: shop\r\ncontent-length: 60000\r\n\r\n"
    async with connected(echo) as (reader, writer):
        for _ in range(2):
            writer.write(early)
            assert b"404" in await reader.readuntil(b"}")
            writer.write(b"x" * 60_000)

    monkeypatch.setattr(http_limits, "REST_OF_BODY_SECONDS", 0.2)
    async with connected(echo) as (reader, writer):
        writer.write(early)
        assert b"404" in await reader.readuntil(b"}")
        closed = asyncio.create_task(reader.read())
        while not closed.done():
            writer.write(b"x")
            await asyncio.wait([closed], timeout=0.01)
        with suppress(ConnectionError):
            await closed


async def test_a_client_that_asks_to_close_may_first_send_the_rest_of_its_body(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python's urllib and HTTP/1.0 ask so, and read no answer before they have sent all."""
    monkeypatch.setattr(http_limits, "REST_OF_BODY_SECONDS", 60)
    head = (
        b"POST /nowhere HTTP/1.1\r\nhost: shop\r\nconnection: close\r\ncontent-length: 1000000\r\n"
    )
    async with connected(echo) as (reader, writer):
        writer.write(head + b"\r\n")
        assert b"404" in await reader.readuntil(b"}")
        writer.write(b"x" * 1_000_000)
        await writer.drain()
        assert await reader.read() == b""


@pytest.mark.parametrize("path", [b"/endless", b"/silent"])
async def test_an_app_learns_soon_that_its_client_ended_its_direction(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, path: bytes
) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_SECONDS", 0.2)
    learned = asyncio.Event()

    async def parts() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield b"part"
                await asyncio.sleep(0.01)
        finally:
            learned.set()

    @echo.get("/silent")
    async def silent(request: Request) -> None:
        async with asyncio.timeout(300):
            while (await request.receive())["type"] != "http.disconnect":
                pass
        learned.set()

    echo.add_api_route("/endless", lambda: StreamingResponse(parts()))
    async with connected(echo) as (reader, writer):
        writer.write(b"GET %b HTTP/1.1\r\nhost: shop\r\n\r\n" % path)
        writer.write_eof()
        async with asyncio.timeout(300):
            await reader.read()
            await learned.wait()


async def test_only_a_limited_number_of_pipelined_requests_is_answered(echo: FastAPI) -> None:
    request = b"GET /caller HTTP/1.1\r\nhost: shop\r\n\r\n"
    async with connected(echo) as (reader, writer):
        writer.write(request * http_limits.MAX_PIPELINED)
        for _ in range(http_limits.MAX_PIPELINED):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b'"')
            await reader.readuntil(b'"')
        writer.write(request * 10_000)
        answers = b""
        with suppress(ConnectionResetError):
            while part := await reader.read(2**20):
                answers += part

    assert answers.count(b"HTTP/1.1 ") <= http_limits.MAX_PIPELINED


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_an_offer_of_another_protocol_is_ignored_and_the_body_is_read(
    echo: FastAPI, protocol: bytes
) -> None:
    offer = b"connection: Upgrade\r\nupgrade: " + protocol + b"\r\n"
    post = b"POST /length HTTP/1.1\r\nhost: shop\r\ncontent-length: 40\r\n" + offer
    body = b"GET /caller HTTP/1.1\r\nhost: shop\r\nx: y\r\n\r\n"[-40:]
    last = b"GET /caller HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n"

    async with connected(echo) as (reader, writer):
        writer.write(post + b"expect: 100-continue\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body + post + b"\r\n" + body + last)
        answers = await reader.read()

    assert answers.count(b"HTTP/1.1 200 OK") == answers.count(b"HTTP/1.1") == 3
    assert answers.count(b"\r\n\r\n40") == 2


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_a_websocket_is_opened_by_get_where_the_app_has_one(
    echo: FastAPI, method: bytes
) -> None:
    pytest.importorskip("websockets", reason="the app has no library for WebSockets")

    @echo.websocket("/length")
    async def talk(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    async with connected(echo) as (reader, writer):
        writer.write(opening(b"/length").replace(b"GET", method))
        answer = await reader.readline()

    assert answer.startswith(b"HTTP/1.1 101 " if method == b"GET" else b"HTTP/1.1 200 ")


@pytest.fixture
def feed(echo: FastAPI) -> FastAPI:
    pytest.importorskip("websockets", reason="the app has no library for WebSockets")

    @echo.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("news" * 500_000)

    @echo.websocket("/only-sends")
    async def only_sends(websocket: WebSocket) -> None:
        await websocket.accept()
        while True:
            await websocket.send_text("news")
            await asyncio.sleep(0.01)

    @echo.websocket("/listens")
    async def listens(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass

    @echo.websocket("/quiet")
    async def quiet(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.receive()

    return echo


def opening(path: bytes) -> bytes:
    offer = b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    return b"GET %b HTTP/1.1\r\nhost: x\r\n%b%b\r\n" % (path, offer, key)


@asynccontextmanager
async def websocket(
    app: FastAPI, path: bytes
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    async with connected(app) as (reader, writer):
        writer.write(opening(path))
        await reader.readuntil(b"\r\n\r\n")
        yield reader, writer


async def test_the_websocket_of_a_client_that_does_not_read_is_closed(
    feed: FastAPI, connections: list[http_limits.ReadInTime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_SECONDS", 0.2)
    async with websocket(feed, b"/feed"):
        await until(lambda: len(connections) == 2)  # one of HTTP, and its successor
        await until(lambda: connections[1:] == [])


async def test_a_flood_of_pings_does_not_fill_the_memory(
    feed: FastAPI, connections: list[http_limits.ReadInTime]
) -> None:
    async with websocket(feed, b"/quiet") as (_, writer):
        _, server = connections
        pings = (b"\x89\xfd\0\0\0\0" + b"p" * 125) * 1000
        for _ in range(150):
            writer.write(pings)
            await writer.drain()
            assert server.transport.get_write_buffer_size() < 1_000_000


async def test_a_client_that_reads_a_feed_slowly_gets_its_pong(
    feed: FastAPI, connections: list[http_limits.ReadInTime]
) -> None:
    """Without one, many clients close the connection."""
    async with websocket(feed, b"/feed") as (reader, writer):
        await until(connections[1].transport.get_write_buffer_size)  # an unread message waits
        writer.write((b"\x89\xfd\0\0\0\0" + b"p" * 125) * 2)
        got = b""
        async with asyncio.timeout(30):
            while b"\x8a\x7d" + b"p" * 125 not in got:
                got = got[-200:] + await reader.read(2**16)


@pytest.mark.parametrize("path", [b"/only-sends", b"/listens"])
async def test_a_flood_of_tiny_frames_is_read_in_small_parts(
    feed: FastAPI, connections: list[http_limits.ReadInTime], path: bytes
) -> None:
    frames: list[int] = []
    async with websocket(feed, path) as (_, writer):
        server: Any = connections[1]
        handle = server.handle_events

        def handle_and_note() -> None:
            frames.append(len(server.conn.events))
            handle()

        server.handle_events = handle_and_note
        begun = time.monotonic()
        writer.write(b"\x81\x80\0\0\0\0" * 10_000)  # empty messages
        await until(lambda: sum(frames) > 2_000)

    assert max(frames) < 200
    assert time.monotonic() - begun > 5 * http_limits.REST_SECONDS


async def test_a_client_that_speaks_to_a_feed_that_only_sends_stays_connected(
    feed: FastAPI, connections: list[http_limits.ReadInTime]
) -> None:
    async with websocket(feed, b"/only-sends") as (reader, writer):
        server: Any = connections[1]
        writer.write(b"\x81\x85\0\0\0\0hello")
        await until(lambda: server.read_paused)
        server.ping_interval = server.ping_timeout = 0.05
        server.send_keepalive_ping()
        kinds: list[int] = []
        while kinds.count(0x89) < 3:
            kind, size = await reader.readexactly(2)
            payload = await reader.readexactly(size)
            if kind == 0x89:  # a ping
                writer.write(b"\x8a\x84\0\0\0\0" + payload)
            kinds.append(kind)

    assert 0x88 not in kinds  # a close


@pytest.mark.parametrize("protocol", ["websocket", "http"])
async def test_a_feed_that_waits_for_nothing_ends_when_its_client_is_gone(
    feed: FastAPI, connections: list[http_limits.ReadInTime], protocol: str
) -> None:
    """Otherwise the process serves nobody until the feed ends."""
    logs.install(feed)
    http = b"GET /news HTTP/1.1\r\nhost: x\r\n\r\n"
    hang_ups: list[Callable[[], None]] = []
    servers: list[http_limits.ReadInTime] = []
    sent = 0

    async def news() -> AsyncGenerator[str]:
        nonlocal sent
        yield "first"
        servers.append(connections[-1])
        hang_ups[0]()
        for sent in range(100_000):  # noqa: B007  # counts
            yield "news"

    @feed.websocket("/news")
    async def speak(websocket: WebSocket) -> None:
        await websocket.accept()
        async for text in news():
            await websocket.send_text(text)

    @feed.get("/news")
    async def stream() -> StreamingResponse:
        return StreamingResponse(news())

    async with connected(feed) as (_, writer):
        hang_ups.append(writer.transport.abort)
        writer.write(opening(b"/news") if protocol == "websocket" else http)
        await until(lambda: servers)
        await until(lambda: servers[0] not in connections)
        assert sent < 1000


@pytest.mark.parametrize("more", [0, 1])
async def test_a_message_of_a_websocket_is_read_up_to_1_mib(feed: FastAPI, more: int) -> None:
    size = http_limits.MOST_MESSAGE_BYTES + more
    body = b"" if more else b"m" * size  # one that is too large is refused before its body
    async with websocket(feed, b"/quiet") as (reader, writer):
        writer.write(b"\x82\xff" + size.to_bytes(8) + b"\0\0\0\0" + body)
        answer = await reader.read()

    assert (b"\x03\xf1" in answer) == bool(more)  # 1009: the message is too large


async def test_a_websocket_is_logged_without_its_address_and_path(
    feed: FastAPI, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    logs.install(feed)
    async with websocket(feed, b"/quiet?token=4711"):
        pass

    [line] = [line for line in capsys.readouterr().out.splitlines() if "accepted" in line]
    assert json.loads(line)["event"] == 'a client - "WebSocket …" [accepted]'


async def test_a_refusal_is_delayed_and_its_logged_duration_excludes_the_delay(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "json")
    logs.install(echo)
    started = time.monotonic()
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /limited HTTP/1.1\r\nhost: shop\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
    seconds = time.monotonic() - started

    assert head.startswith(b"HTTP/1.1 429 ")
    assert seconds > http_limits.REFUSAL_DELAY_SECONDS
    [line] = [json.loads(line) for line in capsys.readouterr().out.splitlines() if "429" in line]
    assert line["duration_ms"] / 1000 < seconds - http_limits.REFUSAL_DELAY_SECONDS


async def test_only_a_limited_number_of_refusals_is_delayed(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "REFUSAL_DELAY_SECONDS", 3600)
    monkeypatch.setattr(http_limits, "MOST_DELAYED", 1)
    app = httpx.ASGITransport(http_limits.LateRefusals(echo))
    async with httpx.AsyncClient(transport=app, base_url="http://shop") as client:
        two = [asyncio.create_task(client.get("/limited")) for _ in range(2)]
        [answered], [held] = await asyncio.wait(two, return_when=asyncio.FIRST_COMPLETED)
        assert answered.result().status_code == 429
        assert (await client.get("/caller")).status_code == 200
        held.cancel()


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[http_limits.ReadInTime]:
    """Those that are open."""
    connections: list[http_limits.ReadInTime] = []
    made, lost = http_limits.ReadInTime.connection_made, http_limits.ReadInTime.connection_lost

    def note_made(self: http_limits.ReadInTime, transport: asyncio.BaseTransport) -> None:
        made(self, transport)
        connections.append(self)

    def note_lost(self: http_limits.ReadInTime, error: Exception | None) -> None:
        lost(self, error)
        connections.remove(self)

    monkeypatch.setattr(http_limits.ReadInTime, "connection_made", note_made)
    monkeypatch.setattr(http_limits.ReadInTime, "connection_lost", note_lost)
    return connections


async def test_the_connection_of_a_client_that_does_not_read_is_closed(
    echo: FastAPI, connections: list[http_limits.ReadInTime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_SECONDS", 0.2)
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /long HTTP/1.1\r\nhost: shop\r\n\r\n")
        await until(lambda: connections)
        await until(lambda: not connections)
        got = 0
        with suppress(ConnectionResetError):
            while part := await reader.read(2**20):
                got += len(part)

    assert 0 < got < 16_000_000


async def test_a_client_that_leaves_a_few_bytes_unread_is_not_kept_for_ever(
    echo: FastAPI, connections: list[http_limits.ReadInTime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "SILENCE_SECONDS", 0.2)
    async with connected(echo) as (_, writer):
        await until(lambda: connections)
        [server] = connections
        while connections and not server.transport.get_write_buffer_size():
            writer.write(b"GET /page HTTP/1.1\r\nhost: shop\r\n\r\n")
            await asyncio.sleep(0.001)
        assert server.transport.get_write_buffer_size() < 64 * 1024
        await until(lambda: not connections)


async def test_a_client_that_reads_a_long_answer_slowly_gets_all_of_it(
    echo: FastAPI, connections: list[http_limits.ReadInTime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At 300 kB/s, a client once got 12 of 20 MB."""
    loop, ahead = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + ahead)
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /long HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        got, before = 0, math.inf
        while part := await reader.read(2**20):
            got += len(part)
            unread = connections[0].transport.get_write_buffer_size() if connections else 0
            if before - unread >= http_limits.LEAST_READ_BYTES:
                ahead += 0.9 * http_limits.SILENCE_SECONDS
                before = unread

    assert got > 16_000_000


async def test_a_request_whose_headers_take_too_long_is_refused(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_limits, "HEAD_SECONDS", 0.2)
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /caller HTTP/1.1\r\n")
        while not reader.at_eof() and not (answer := await _read_soon(reader)):
            writer.write(b"a: b\r\n")

    assert answer.startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_stalls_is_refused_and_a_slow_body_is_read(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, parts: list[bytes]
) -> None:
    loop, ahead = asyncio.get_running_loop(), 0.0
    monkeypatch.setattr(loop, "time", lambda: time.monotonic() + ahead)
    head = b"POST /length HTTP/1.1\r\nhost: shop\r\ncontent-length: 4\r\n\r\n"
    async with connected(echo) as (reader, writer):
        for count, part in enumerate((head, b"a", b"a", b"a")):
            writer.write(part)
            await until(lambda: len(parts) > count)  # noqa: B023  # it is awaited here
            ahead += 0.6 * http_limits.SILENCE_SECONDS
        writer.write(b"a")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(1) == b"4"
        writer.write(head + b"a")
        await until(lambda: parts[-1] == head + b"a")
        ahead += http_limits.SILENCE_SECONDS
        assert await reader.read() == b""


class Noted:
    """A transport that notes each write, which is a system call."""

    def __init__(self, transport: asyncio.Transport, writes: list[bytes]) -> None:
        self._transport = transport
        self._writes = writes

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        self._writes.append(data)
        self._transport.write(data)


def kind(data: bytes) -> str:
    if not data.startswith(b"HTTP/1.1 "):
        return "body"
    return "head" if data.endswith(b"\r\n\r\n") else "head and body"


@pytest.mark.parametrize(
    ("request_", "kinds"),
    [
        ("GET /caller", ["head and body"]),
        ("HEAD /any", ["head"]),
        ("GET /nothing", ["head"]),
        ("GET /parts", ["head and body", "body", "body"]),
        ("GET /broken", ["head"]),
        ("POST /length", ["head", "head and body"]),
    ],
)
async def test_a_head_leaves_with_the_first_part_of_its_body(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch, request_: str, kinds: list[str]
) -> None:
    async def parts(count: int) -> AsyncGenerator[str]:
        for _ in range(count):
            yield "part"
        if not count:
            raise ValueError

    echo.add_api_route("/parts", lambda: StreamingResponse(parts(2)))
    echo.add_api_route("/broken", lambda: StreamingResponse(parts(0)))
    echo.add_api_route("/nothing", lambda: None, status_code=204)
    echo.add_api_route("/any", lambda: "any", methods=["HEAD"])
    writes: list[bytes] = []
    made = http_limits.LimitedHttp.connection_made
    monkeypatch.setattr(
        http_limits.LimitedHttp,
        "connection_made",
        lambda self, transport: made(self, Noted(transport, writes)),  # type: ignore[arg-type]
    )
    async with connected(echo) as (reader, writer):
        expecting = "expect: 100-continue\r\ncontent-length: 4\r\n" if "POST" in request_ else ""
        head = f"{request_} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{expecting}\r\n"
        writer.write(head.encode())
        if expecting:
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b"body")
        await reader.read()

    assert [kind(data) for data in writes] == kinds


async def test_a_body_may_be_the_text_of_an_interim_answer(echo: FastAPI) -> None:
    text = "HTTP/1.1 100 Continue\r\n\r\n"
    echo.add_api_route("/interim", lambda: PlainTextResponse(text))
    async with connected(echo) as (reader, writer):
        writer.write(b"GET /interim HTTP/1.1\r\nhost: shop\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 OK")
        assert await reader.readexactly(len(text)) == text.encode()


@pytest.mark.parametrize(("allowed", "then"), [(1024, 2048), (2048, 2048)])
def test_the_server_asks_for_more_open_files(allowed: int, then: int) -> None:
    """In another process, because the limit cannot be raised again."""
    script = f"""
import resource
from app.infra import serve
resource.setrlimit(resource.RLIMIT_NOFILE, ({allowed}, 2048))
serve._allow_open_files()
print(*resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)

    assert done.stdout.split() == [str(then).encode(), b"2048"]


async def test_a_connection_without_a_request_is_closed(
    echo: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEP_ALIVE_SECONDS", "1")

    async with connected(echo) as (reader, _), asyncio.timeout(60):
        assert await reader.read() == b""


async def _read_soon(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(0.05):
            return await reader.read(100)
    except TimeoutError:
        return b""


def test_the_first_process_of_a_container_can_be_stopped_while_it_begins() -> None:
    done = run_python("-c", STOPPED_WHILE_IT_BEGINS)
    assert (done.returncode, done.stderr) == (0, "")
