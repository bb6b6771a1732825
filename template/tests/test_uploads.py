from base64 import b64decode
from hashlib import sha256
from typing import Any
from uuid import uuid4

import pytest
from httpx import AsyncClient
from sqlalchemy import func, select, update

from app.infra.database import Database
from app.uploads.models import Upload
from app.uploads.schemas import MAX_BYTES
from app.uploads.service import GIVEN_UP_AFTER
from dev.pytest_plugin import Services

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
    assert (await client.request(**started["send_to"], content=image)).status_code == 204
    completed = await client.post(f"/uploads/{started['id']}/completion")
    assert completed.status_code == 200
    stored: dict[str, Any] = completed.json()
    return stored


async def test_an_image_comes_back_as_it_was_sent(ada: AsyncClient) -> None:
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


async def test_completing_again_changes_nothing(ada: AsyncClient) -> None:
    stored = await upload(ada)

    again = await ada.post(f"/uploads/{stored['id']}/completion")

    assert again.json()["completed_at"] == stored["completed_at"]


async def test_an_upload_without_its_bytes_cannot_be_completed(ada: AsyncClient) -> None:
    started = await announce(ada, PNG)

    assert (await ada.post(f"/uploads/{started['id']}/completion")).status_code == 409
    assert (await ada.get(f"/uploads/{started['id']}")).status_code == 404


async def test_something_that_is_no_image_cannot_be_completed(ada: AsyncClient) -> None:
    html = b"<script>alert('no image')</script>"
    started = await announce(ada, html)
    await ada.request(**started["send_to"], content=html)

    assert (await ada.post(f"/uploads/{started['id']}/completion")).status_code == 422


async def test_a_deleted_image_is_gone_with_its_file(ada: AsyncClient, services: Services) -> None:
    stored = await upload(ada)

    assert (await ada.delete(f"/uploads/{stored['id']}")).status_code == 204

    assert (await ada.get(f"/uploads/{stored['id']}")).status_code == 404
    assert (await ada.get(stored["link"])).status_code == 404
    assert [path for path in services.files_folder.rglob("*") if path.is_file()] == []


async def test_nobody_else_sees_completes_or_deletes_an_upload(
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


async def test_what_was_announced_and_given_up_is_swept(
    ada: AsyncClient, database: Database, services: Services
) -> None:
    started = await announce(ada, PNG)
    await ada.request(**started["send_to"], content=PNG)
    kept = await upload(ada)
    async with database.transaction() as write:
        await write.execute(update(Upload).values(created_at=func.now() - 2 * GIVEN_UP_AFTER))

    await announce(ada, PNG)

    async with database.transaction() as write:
        left = set(await write.scalars(select(Upload.id).where(Upload.completed_at.is_not(None))))
        assert await write.get(Upload, started["id"]) is None
    assert {str(upload_id) for upload_id in left} == {kept["id"]}
    assert len([path for path in services.files_folder.rglob("*") if path.is_file()]) == 1
