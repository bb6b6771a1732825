# Rung's file: advancing to another stage may change it.
import asyncio
import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.infra.files import Files, UploadRequest
from app.infra.folder import FileExists, FileMissing, Folder, WrongSize
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def stored(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_what_was_put_is_got(folder: Folder) -> None:
    content = os.urandom(200_000)
    await folder.put("a/b", chunks(content[:70_000], content[70_000:]), len(content))

    assert b"".join([chunk async for chunk in folder.get("a/b")]) == content
    facts = await folder.facts("a/b")
    assert (facts.size, facts.sha256) == (200_000, sha256(content).hexdigest())
    assert facts.head == content[:16]


@pytest.mark.parametrize("parts", [(b"1234", b"5"), (b"123",), ()])
async def test_a_file_of_another_size_than_announced_is_not_stored(
    folder: Folder, tmp_path: Path, parts: tuple[bytes, ...]
) -> None:
    with pytest.raises(WrongSize):
        await folder.put("a", chunks(*parts), 4)

    assert stored(tmp_path) == []


async def test_a_file_that_does_not_arrive_whole_leaves_nothing(
    folder: Folder, tmp_path: Path
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b"1234"
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await folder.put("a", broken(), 8)

    putting = asyncio.create_task(folder.put("b", endless(), 8))
    await asyncio.sleep(0.05)
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting

    assert stored(tmp_path) == []


async def endless() -> AsyncIterator[bytes]:
    yield b"1"
    await asyncio.sleep(60)


async def test_what_is_stored_under_a_key_never_changes(folder: Folder) -> None:
    await folder.put("a", chunks(b"first"), 5)

    with pytest.raises(FileExists):
        await folder.put("a", chunks(b"other"), 5)

    assert [chunk async for chunk in folder.get("a")] == [b"first"]


async def test_of_many_at_once_one_is_stored_whole(folder: Folder, tmp_path: Path) -> None:
    contents = [bytes([n]) * 100_000 for n in range(8)]
    results = await asyncio.gather(
        *(folder.put("a", chunks(content), 100_000) for content in contents),
        return_exceptions=True,
    )

    assert sorted(type(result).__name__ for result in results) == ["FileExists"] * 7 + ["NoneType"]
    assert b"".join([chunk async for chunk in folder.get("a")]) in contents
    assert stored(tmp_path) == ["a"]


async def test_a_file_that_is_not_there_is_missing_and_can_be_deleted(folder: Folder) -> None:
    with pytest.raises(FileMissing):
        await folder.facts("a")
    await folder.delete("a")


@pytest.fixture
def shop(bare: FastAPI) -> FastAPI:
    @bare.get("/upload/{name}")
    async def upload(files: Files, name: str, size: int) -> UploadRequest:
        return files.upload_request(f"pictures/{name}", "image/png", size)

    @bare.get("/link/{name}")
    async def link(files: Files, name: str) -> str:
        return files.link(f"pictures/{name}", "image/png")

    return bare


async def send(client: AsyncClient, content: bytes) -> None:
    request = (await client.get(f"/upload/one?size={len(content)}")).json()
    assert (await client.request(**request, content=content)).status_code == 204


async def test_a_client_sends_and_gets_a_file_through_links(shop: FastAPI, serve: Serve) -> None:
    content = os.urandom(300_000)  # more than any other body may have
    async with serve(shop) as client:
        await send(client, content)
        answer = await client.get((await client.get("/link/one")).json())

    assert answer.content == content
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"].startswith("private")
    assert "sandbox" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("part", "other"),
    [
        ("pictures/one", "pictures/two"),
        ("image%2Fpng", "text%2Fhtml"),
        ("expires=1", "expires=2"),
        ("signature=", "signature=0"),
        ("pictures/one", "pictures/..%2Fone"),
    ],
)
async def test_a_link_that_was_changed_opens_nothing(
    shop: FastAPI, serve: Serve, part: str, other: str
) -> None:
    async with serve(shop) as client:
        await send(client, b"hello")
        link = (await client.get("/link/one")).json()
        assert part in link

        assert (await client.get(link.replace(part, other))).status_code in {403, 404, 422}
        assert (await client.get(link)).status_code == 200


async def test_a_link_to_get_cannot_be_used_to_put(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        link = (await client.get("/link/two")).json()
        answer = await client.put(
            f"{link}&size=2", content=b"hi", headers={"content-type": "image/png"}
        )

    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [(b"12345", "image/png", 422), (b"123", "image/png", 422), (b"1234", "text/html", 403)],
)
async def test_size_and_type_are_what_was_announced(
    shop: FastAPI,
    serve: Serve,
    services: Services,
    content: bytes,
    content_type: str,
    status: int,
) -> None:
    async with serve(shop) as client:
        request = (await client.get("/upload/one?size=4")).json()
        answer = await client.put(
            request["url"], content=content, headers={"content-type": content_type}
        )

    assert answer.status_code == status
    assert stored(services.files_folder) == []


async def test_the_size_cannot_be_changed_in_a_link_to_put(shop: FastAPI, serve: Serve) -> None:
    async with serve(shop) as client:
        request = (await client.get("/upload/one?size=4")).json()
        larger = request["url"].replace("size=4", "size=5")
        answer = await client.put(larger, content=b"12345", headers=request["headers"])

    assert answer.status_code == 403


@pytest.mark.parametrize("key", ["../one", "a/../../one", "/etc/passwd", "A.png", ""])
async def test_a_key_cannot_lead_out_of_the_folder(folder: Folder, key: str) -> None:
    with pytest.raises(ValueError, match="a key is"):
        await folder.put(key, chunks(b"1"), 1)


async def test_what_a_crash_left_behind_is_swept(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / ".unfinished").mkdir()
    for name, age in (("old", 25 * 3600), ("under-way", 60)):
        file = tmp_path / ".unfinished" / name
        file.touch()
        os.utime(file, (time.time() - age, time.time() - age))

    folder.sweep()

    assert stored(tmp_path) == [".unfinished/under-way"]


async def test_a_link_ends(shop: FastAPI, serve: Serve) -> None:
    shop.state.file_settings.link_lifetime = timedelta(seconds=-1)
    async with serve(shop) as client:
        assert (await client.get((await client.get("/link/one")).json())).status_code == 403
