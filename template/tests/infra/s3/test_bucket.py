# Rung's file: advancing to another stage may change it.
"""Tests of the bucket against a real S3 over HTTP."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from hashlib import sha256

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.infra.files import FileExists, FileMissing, Files, UploadRequest, WrongSize
from app.infra.s3.bucket import Bucket
from dev.pytest_plugin import Services
from dev.s3 import rclone
from tests.infra.conftest import Serve, bare_app, until
from tests.infra.test_files import chunks, endless, stored

HELLO = b"hello"


@pytest.fixture
def objects(services: Services, s3_server: rclone.S3) -> Callable[[], list[str]]:
    """The keys of all objects in this test's bucket."""
    folder = s3_server.buckets / os.environ["FILES_BUCKET"]
    return lambda: stored(folder)


async def test_a_stored_file_is_read_back(bucket: Bucket) -> None:
    content = os.urandom(200_000)
    await bucket.put("a/b", chunks(content[:70_000], content[70_000:]), len(content))

    assert b"".join([chunk async for chunk in bucket.get("a/b")]) == content
    facts = await bucket.facts("a/b")
    assert (facts.size, facts.sha256) == (200_000, sha256(content).hexdigest())
    assert facts.head == content[:16]
    assert await bucket.size("a/b") == 200_000


@pytest.mark.parametrize("parts", [(b"1234", b"5"), (b"123",), ()])
async def test_a_file_of_another_size_than_announced_is_not_stored(
    bucket: Bucket, objects: Callable[[], list[str]], parts: tuple[bytes, ...]
) -> None:
    with pytest.raises(WrongSize):
        await bucket.put("a", chunks(*parts), 4)

    await until(lambda: objects() == [])  # rclone shows a partial upload until it is aborted


async def test_an_incomplete_upload_leaves_nothing(
    bucket: Bucket, objects: Callable[[], list[str]]
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"1234"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await bucket.put("a", broken(), 8)

    putting = asyncio.create_task(bucket.put("b", endless(), 8))
    await asyncio.sleep(0.05)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting

    await until(lambda: objects() == [])


async def test_a_stored_file_never_changes(bucket: Bucket) -> None:
    await bucket.put("a", chunks(b"first"), 5)

    with pytest.raises(FileExists):
        await bucket.put("a", chunks(b"other"), 5)

    assert [chunk async for chunk in bucket.get("a")] == [b"first"]


async def test_a_file_that_is_not_there_is_missing_and_can_be_deleted(bucket: Bucket) -> None:
    with pytest.raises(FileMissing):
        await bucket.facts("a")
    assert await bucket.size("a") is None
    await bucket.delete("a")


async def test_every_key_is_listed_a_page_at_a_time(bucket: Bucket, s3_server: rclone.S3) -> None:
    keys = [f"pictures/{number:04}" for number in range(1001)]
    folder = s3_server.buckets / os.environ["FILES_BUCKET"] / "pictures"
    folder.mkdir()
    for key in keys:
        (folder / key.removeprefix("pictures/")).touch()

    assert [key async for key in bucket.keys()] == keys  # noqa: SIM118  # no dictionary


@pytest.fixture
def app(bare: FastAPI) -> FastAPI:
    return with_pictures(bare)


def with_pictures(app: FastAPI) -> FastAPI:
    app.state.recorded = []

    @app.get("/upload/{name}")
    async def upload(files: Files, name: str, size: int) -> UploadRequest:
        return files.upload_request(f"pictures/{name}", "image/png", size)

    @app.post("/completion/{name}")
    async def complete(files: Files, name: str) -> str:
        facts = await files.facts(f"pictures/{name}")
        app.state.recorded.append(name)
        return facts.sha256

    @app.get("/link/{name}")
    async def link(files: Files, name: str) -> str:
        return files.link(f"pictures/{name}", "image/png")

    @app.delete("/picture/{name}")
    async def delete(files: Files, name: str) -> None:
        await files.delete(f"pictures/{name}")

    return app


async def send(client: AsyncClient, content: bytes, name: str = "one") -> None:
    request = (await client.get(f"/upload/{name}?size={len(content)}")).json()
    async with AsyncClient() as stranger:  # a client that has only the signed request
        assert (await stranger.request(**request, content=content)).status_code == 200


async def test_a_client_sends_and_gets_a_file_past_the_app(
    app: FastAPI, serve: Serve, services: Services
) -> None:
    content = os.urandom(300_000)
    async with serve(app) as client, AsyncClient() as stranger:
        await send(client, content)
        completed = await client.post("/completion/one")
        answer = await stranger.get((await client.get("/link/one")).json())

    assert completed.json() == sha256(content).hexdigest()
    assert answer.content == content
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"].startswith("private")
    assert stored(services.files_folder) == []


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("pictures/one", "pictures/two"),
        ("image%2Fpng", "text%2Fhtml"),
        ("Expires=900", "Expires=9000"),
        ("Signature=", "Signature=0"),
    ],
)
async def test_a_changed_link_is_refused(client: AsyncClient, part: str, other: str) -> None:
    await send(client, HELLO)
    await send(client, HELLO, "two")
    link = (await client.get("/link/one")).json()
    assert part in link

    assert (await client.get(link.replace(part, other))).status_code == 403
    assert (await client.get(link)).status_code == 200


async def test_without_a_link_nobody_can_read_write_or_list(client: AsyncClient) -> None:
    await send(client, HELLO)
    address = (await client.get("/link/one")).json().partition("?")[0]
    everything = address.removesuffix("/pictures/one")

    assert (await client.get(address)).is_client_error
    assert (await client.put(address, content=HELLO)).is_client_error
    assert (await client.get(everything)).is_client_error


async def test_a_link_to_get_cannot_be_used_to_put_or_delete(client: AsyncClient) -> None:
    await send(client, HELLO)
    link = (await client.get("/link/one")).json()

    assert (await client.put(link, content=b"other")).status_code == 403
    assert (await client.delete(link)).status_code == 403
    assert (await client.get(link)).content == HELLO


@pytest.mark.parametrize(
    ("content", "change"),
    [
        (b"12345", {}),
        (b"123", {}),
        (b"1234", {"content-type": "text/html"}),
        (b"1234", {"if-none-match": "no"}),
    ],
)
async def test_an_upload_must_have_the_announced_size_and_type_and_be_new(
    client: AsyncClient, objects: Callable[[], list[str]], content: bytes, change: dict[str, str]
) -> None:
    request = (await client.get("/upload/one?size=4")).json()
    headers = request["headers"] | change
    answer = await client.put(request["url"], content=content, headers=headers)

    assert answer.status_code == 403
    assert objects() == []


async def test_an_upload_link_is_valid_for_its_own_key_only(
    client: AsyncClient, objects: Callable[[], list[str]]
) -> None:
    request = (await client.get("/upload/one?size=5")).json()
    another = request["url"].replace("pictures/one", "pictures/two")
    answer = await client.put(another, content=HELLO, headers=request["headers"])

    assert answer.status_code == 403
    assert objects() == []


@pytest.mark.slow
async def test_a_link_expires(
    services: Services, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_LINK_LIFETIME", "PT1S")
    async with serve(with_pictures(bare_app())) as client:
        link = (await client.get("/link/one")).json()
        request = (await client.get("/upload/one?size=5")).json()
        await asyncio.sleep(2.1)

        assert (await client.get(link)).is_client_error
        assert (await client.request(**request, content=HELLO)).is_client_error


@pytest.mark.parametrize("key", ["../one", "a/../../one", "/etc/passwd", "A.png", ""])
async def test_a_key_that_could_escape_its_place_is_refused(bucket: Bucket, key: str) -> None:
    with pytest.raises(ValueError, match="a key is"):
        bucket.link(key, "image/png")
    with pytest.raises(ValueError, match="a key is"):
        bucket.upload_request(key, "image/png", 1)
    with pytest.raises(ValueError, match="a key is"):
        await bucket.delete(key)
