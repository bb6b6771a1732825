# Rung's file: advancing to another stage may change it.
"""Tests of an S3 that is away, hangs, fails or refuses: 503 in time, and no partial result."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from itertools import batched

import pytest

from app.infra import environment
from app.infra.failures import Unavailable
from app.infra.s3.bucket import Bucket
from app.infra.s3.settings import FileSettings, bucket_of
from dev.s3 import rclone
from tests.infra.conftest import Serve, bare_app
from tests.infra.s3.test_bucket import HELLO, send, with_pictures
from tests.infra.test_files import chunks

pytestmark = pytest.mark.usefixtures("services")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["hang", "die"])
async def test_while_s3_does_not_answer_requests_are_503_and_nothing_is_recorded(
    own_server: rclone.S3, serve: Serve, way: str
) -> None:
    app = with_pictures(bare_app())
    async with serve(app) as client:
        await send(client, HELLO)
        bucket = app.state.bucket
        patience, bucket._seconds = bucket._seconds, 0.5
        getattr(own_server, way)()
        try:
            async with asyncio.timeout(300):
                completed = await client.post("/completion/one")
                deleted = await client.delete("/picture/two")
        finally:
            (own_server.go_on if way == "hang" else own_server.start)()
            bucket._seconds = patience

        assert (completed.status_code, completed.headers["retry-after"]) == (503, "1")
        assert deleted.status_code == 503
        assert app.state.recorded == []
        assert (await client.post("/completion/one")).json() == sha256(HELLO).hexdigest()


def said(status: str, body: bytes, length: int | None = None) -> bytes:
    length = len(body) if length is None else length
    return (
        f"HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n".encode()
        + body
    )


FAILED = said("500 Internal Server Error", b"")
SAID_HELLO = said("200 OK", HELLO)
BROKEN_OFF = said("200 OK", HELLO, length=500)
REFUSED = said("403 Forbidden", b"<Code>AccessDenied</Code>")
NO_BUCKET = said("404 Not Found", b"<Code>NoSuchBucket</Code>")
MISSING = said("404 Not Found", b"")


@asynccontextmanager
async def bucket_that_answers(
    *answers: bytes, pause: float = 0, heads: list[bytes] | None = None
) -> AsyncGenerator[tuple[Bucket, list[str]]]:
    """A bucket, and the methods that it was asked for. Adds the requests' heads to `heads`. Each
    answer is given once, the last one from then on. With a pause, it comes byte by byte."""
    asked: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        asked.append(head.split()[0].decode())
        if heads is not None:
            heads.append(head.lower())
        answer = answers[min(len(asked), len(answers)) - 1]
        with suppress(ConnectionError):
            for part in map(bytes, batched(answer, 1 if pause else len(answer), strict=True)):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FILES_S3_ENDPOINT", f"http://127.0.0.1:{port}")
            async with bucket_of(environment.read(FileSettings)) as bucket:
                yield bucket, asked


async def test_a_failed_request_to_s3_is_retried_once() -> None:
    async with bucket_that_answers(FAILED, SAID_HELLO) as (bucket, asked):
        assert [chunk async for chunk in bucket.get("a")] == [HELLO]

    assert asked == ["GET", "GET"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (FAILED, "500"),
        (BROKEN_OFF, "ended its answer to GET"),
        (REFUSED, "403 AccessDenied"),
        (NO_BUCKET, "404 NoSuchBucket"),
    ],
    ids=["failed", "broken-off", "refused", "no-bucket"],
)
async def test_an_s3_that_fails_or_refuses_is_unavailable(answer: bytes, reason: str) -> None:
    async with bucket_that_answers(answer) as (bucket, asked):
        with pytest.raises(Unavailable, match=f"S3 .*{reason}"):
            await bucket.facts("a")

    assert len(asked) <= 2


@pytest.mark.parametrize("answer", [SAID_HELLO, REFUSED], ids=["served", "refused"])
async def test_an_answer_that_comes_byte_by_byte_is_given_up(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setenv("FILES_S3_SECONDS", "0.2")
    async with bucket_that_answers(answer, pause=0.1) as (bucket, _):
        for asked in (bucket.facts("a"), bucket.size("a"), bucket.delete("a"), bucket.check()):
            with pytest.raises(Unavailable, match="S3 did not"):
                await asked


async def test_a_proxy_before_s3_is_asked_not_to_compress_files() -> None:
    """nginx compresses texts for clients that accept it: they get another hash, and no size."""
    heads: list[bytes] = []
    async with bucket_that_answers(SAID_HELLO, heads=heads) as (bucket, _):
        await bucket.facts("a")
        await bucket.size("a")

    assert [b"\r\naccept-encoding: identity\r\n" in head for head in heads] == [True, True]


async def test_a_file_without_a_size_is_unavailable() -> None:
    async with bucket_that_answers(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n") as (bucket, _):
        with pytest.raises(Unavailable, match="without its size"):
            await bucket.size("a")


async def test_a_server_that_finds_any_file_is_no_bucket() -> None:
    """Such as the web console of an S3."""
    async with bucket_that_answers(SAID_HELLO) as (bucket, _):
        with pytest.raises(Unavailable, match="S3 answered 200"):
            await bucket.check()


async def test_an_answer_that_cannot_be_decompressed_is_unavailable() -> None:
    answer = REFUSED.replace(b"connection:", b"content-encoding: gzip\r\nconnection:")
    async with bucket_that_answers(answer) as (bucket, _):
        with pytest.raises(Unavailable, match="S3 did not"):
            await bucket.delete("a")


async def test_a_file_that_is_gone_already_is_deleted() -> None:
    """Amazon answers 204, and Google 404."""
    gone = said("404 Not Found", b"<Code>NoSuchKey</Code>")
    async with bucket_that_answers(gone, NO_BUCKET) as (bucket, _):
        await bucket.delete("a")
        with pytest.raises(Unavailable, match="NoSuchBucket"):
            await bucket.delete("a")


async def test_a_failed_upload_to_s3_is_not_sent_again() -> None:
    async with bucket_that_answers(MISSING, FAILED) as (bucket, asked):
        with pytest.raises(Unavailable):
            await bucket.put("a", chunks(HELLO), 5)

    assert asked == ["HEAD", "PUT"]
