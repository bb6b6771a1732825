# Rung's file: advancing to another stage may change it.
"""Tests of an S3 that is away, hangs, fails or refuses: 503 in time, and no partial result."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256

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
        getattr(own_server, way)()
        try:
            async with asyncio.timeout(300):
                completed = await client.post("/completion/one")
                deleted = await client.delete("/picture/two")
        finally:
            (own_server.go_on if way == "hang" else own_server.start)()

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
async def bucket_that_answers(*answers: bytes) -> AsyncGenerator[tuple[Bucket, list[str]]]:
    """A bucket, and the methods that it was asked for. Each answer is given once, the last one
    from then on."""
    asked: list[str] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).split()[0].decode())
        writer.write(answers[min(len(asked), len(answers)) - 1])
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
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
