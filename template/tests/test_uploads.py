import asyncio
from base64 import b64decode
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from fastapi import FastAPI, Request
from httpx import AsyncClient
from sqlalchemy import func, select, update

from app.infra.database import Database
from app.infra.failures import Unavailable
from app.infra.files import FileMissing, Files, files_of
from app.infra.stored_files import FileFacts
from app.uploads import service
from app.uploads.models import Upload
from app.uploads.schemas import MAX_BYTES
from app.uploads.service import SWEPT_AFTER

PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


async def announce(client: AsyncClient, image: bytes) -> dict[str, Any]:
    announced = {"content_type": "image/png", "size": len(image)}
    answer = await client.post("/uploads", json=announced)
    assert answer.status_code == 201
    started: dict[str, Any] = answer.json()
    return started


async def upload(client: AsyncClient, image: bytes = PNG) -> dict[str, Any]:
    started = await announce(client, image)
    assert (await client.request(**started["send_to"], content=image)).status_code == 200
    completed = await client.post(f"/uploads/{started['id']}/completion")
    assert completed.status_code == 200
    stored: dict[str, Any] = completed.json()
    return stored


async def test_an_image_comes_back_unchanged(ada: AsyncClient) -> None:
    stored = await upload(ada)

    assert stored["size"] == len(PNG)
    assert stored["sha256"] == sha256(PNG).hexdigest()
    image = await ada.get(f"/uploads/{stored['id']}/image", follow_redirects=True)
    assert image.content == PNG
    assert image.headers["content-type"] == "image/png"


async def test_the_largest_image_fits(ada: AsyncClient) -> None:
    large = PNG.ljust(MAX_BYTES, b"\0")

    stored = await upload(ada, large)

    image = await ada.get(f"/uploads/{stored['id']}/image", follow_redirects=True)
    assert sha256(image.content).hexdigest() == sha256(large).hexdigest()


@pytest.mark.parametrize(
    "wrong", [{"size": MAX_BYTES + 1}, {"size": 0}, {"content_type": "text/html"}]
)
async def test_size_and_type_are_limited(ada: AsyncClient, wrong: dict[str, Any]) -> None:
    announced = {"content_type": "image/png", "size": 70, **wrong}

    assert (await ada.post("/uploads", json=announced)).status_code == 422


async def test_the_quota_holds_when_an_account_announces_many_uploads_at_once(
    ada: AsyncClient, grace: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "QUOTA_BYTES", 3 * MAX_BYTES)
    announced = {"content_type": "image/png", "size": MAX_BYTES}

    answers = await asyncio.gather(*(ada.post("/uploads", json=announced) for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [403] * 17
    stored = await grace.post("/uploads", json=announced)
    assert stored.status_code == 201
    await grace.delete(f"/uploads/{stored.json()['id']}")
    assert (await grace.post("/uploads", json=announced)).status_code == 201
    assert (await grace.post("/uploads", json=announced)).status_code == 201
    assert (await grace.post("/uploads", json=announced)).status_code == 403


async def test_tiny_uploads_fill_the_quota_before_their_rows_are_slow_to_read(
    ada: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "QUOTA_BYTES", 3 * service.LEAST_COUNTED_BYTES)
    for _ in range(3):
        await announce(ada, PNG)

    announced = {"content_type": "image/png", "size": 1}
    assert (await ada.post("/uploads", json=announced)).status_code == 403


async def test_completing_again_changes_nothing(ada: AsyncClient) -> None:
    stored = await upload(ada)

    again = await ada.post(f"/uploads/{stored['id']}/completion")

    assert again.json()["completed_at"] == stored["completed_at"]


async def test_an_upload_without_its_bytes_cannot_be_completed(ada: AsyncClient) -> None:
    started = await announce(ada, PNG)

    assert (await ada.post(f"/uploads/{started['id']}/completion")).status_code == 409
    assert (await ada.get(f"/uploads/{started['id']}")).status_code == 404


async def test_a_file_that_is_not_an_image_cannot_be_completed(ada: AsyncClient) -> None:
    html = b"<script>alert('no image')</script>"
    started = await announce(ada, html)
    await ada.request(**started["send_to"], content=html)

    assert (await ada.post(f"/uploads/{started['id']}/completion")).status_code == 422


async def test_a_deleted_image_is_gone_with_its_file(ada: AsyncClient) -> None:
    stored = await upload(ada)

    assert (await ada.delete(f"/uploads/{stored['id']}")).status_code == 204

    assert (await ada.get(f"/uploads/{stored['id']}")).status_code == 404
    assert (await ada.get(stored["link"])).status_code == 404


async def test_another_person_cannot_see_complete_or_delete_an_upload(
    ada: AsyncClient, grace: AsyncClient
) -> None:
    stored = await upload(ada)

    path = f"/uploads/{stored['id']}"
    assert (await grace.get(path)).status_code == 404
    assert (await grace.get(f"{path}/image")).status_code == 404
    assert (await grace.post(f"{path}/completion")).status_code == 404
    assert (await grace.delete(path)).status_code == 404
    assert (await ada.get(path)).status_code == 200


async def test_uploads_need_a_login(client: AsyncClient) -> None:
    announced = {"content_type": "image/png", "size": 70}

    assert (await client.post("/uploads", json=announced)).status_code == 401
    assert (await client.get(f"/uploads/{uuid4()}")).status_code == 401


async def test_abandoned_and_deleted_uploads_are_swept_the_next_day(
    ada: AsyncClient, grace: AsyncClient, database: Database, files: Files
) -> None:
    abandoned = await announce(ada, PNG)
    deleted = await announce(ada, PNG)
    await ada.delete(f"/uploads/{deleted['id']}")
    for started in (abandoned, deleted):  # its link still works for some minutes
        assert (await ada.request(**started["send_to"], content=PNG)).status_code == 200
    kept = await upload(ada)
    keys = await keys_of_uploads(database)
    async with database.transaction() as write:
        await write.execute(update(Upload).values(created_at=func.now() - 2 * SWEPT_AFTER))

    await announce(grace, PNG)

    left = await keys_of_uploads(database)
    assert set(left) & set(keys) == {kept["id"]}
    for upload_id, key in keys.items():
        if upload_id == kept["id"]:
            assert (await files.facts(key)).size == len(PNG)
        else:
            with pytest.raises(FileMissing):
                await files.facts(key)


async def test_an_upload_can_start_while_old_files_cannot_be_deleted(
    ada: AsyncClient, database: Database, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def cannot_delete(*_: object) -> None:
        raise Unavailable

    abandoned = await announce(ada, PNG)
    async with database.transaction() as write:
        await write.execute(update(Upload).values(created_at=func.now() - 2 * SWEPT_AFTER))

    with monkeypatch.context() as outage:
        outage.setattr(type(files), "delete", cannot_delete)
        started = await announce(ada, PNG)
    assert {abandoned["id"], started["id"]} <= (await keys_of_uploads(database)).keys()

    await announce(ada, PNG)
    assert abandoned["id"] not in await keys_of_uploads(database)


async def test_an_unfinished_upload_is_not_swept_on_the_same_day(ada: AsyncClient) -> None:
    started = await announce(ada, PNG)
    await announce(ada, PNG)

    await ada.request(**started["send_to"], content=PNG)

    assert (await ada.post(f"/uploads/{started['id']}/completion")).status_code == 200


@pytest.mark.usefixtures("open_connections")
async def test_concurrent_completions_complete_an_upload_once(ada: AsyncClient) -> None:
    started = await announce(ada, PNG)
    await ada.request(**started["send_to"], content=PNG)

    path = f"/uploads/{started['id']}/completion"
    answers = await asyncio.gather(*(ada.post(path) for _ in range(4)))

    assert len({answer.json()["completed_at"] for answer in answers}) == 1


@pytest.mark.usefixtures("open_connections")
async def test_a_file_is_read_once_however_often_somebody_completes_it(
    ada: AsyncClient, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = type(files).facts
    keys: list[str] = []

    async def noted(store: Files, key: str) -> FileFacts:
        keys.append(key)
        return await read(store, key)

    monkeypatch.setattr(type(files), "facts", noted)
    for content, first, later in ((PNG, 200, 200), (b"<script>no image</script>", 422, 404)):
        started = await announce(ada, content)
        await ada.request(**started["send_to"], content=content)
        path = f"/uploads/{started['id']}/completion"
        assert (await ada.post(path)).status_code == first
        assert (await ada.post(path)).status_code == later

    assert len(keys) == len(set(keys)) == 2


async def keys_of_uploads(database: Database) -> dict[str, str]:
    async with database.transaction() as write:
        return {str(row.id): row.key for row in await write.execute(select(Upload.id, Upload.key))}


@pytest.fixture
def files(app: FastAPI) -> Files:
    return files_of(Request({"type": "http", "app": app, "headers": [], "path": "/"}))
