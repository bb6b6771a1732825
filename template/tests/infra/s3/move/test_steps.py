# Rung's file: advancing to another stage may change it.
"""Files at each step of their move to S3, and copies of neighbouring steps side by side."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from hashlib import sha256
from itertools import pairwise

import pytest
from httpx import AsyncClient

from app.infra.folder import Folder
from app.infra.s3.bucket import Bucket
from app.infra.s3.settings import Step
from dev.pytest_plugin import Services
from dev.s3 import rclone
from tests.infra.conftest import Serve, bare_app
from tests.infra.s3.test_bucket import with_pictures
from tests.infra.test_files import chunks

pytestmark = pytest.mark.slow  # A service moves once, and its tests take seconds.

NEIGHBOURS = list(pairwise(Step))
BOTH = [Step.READ_BOTH, Step.UPLOAD_TO_S3]


@pytest.fixture
def folder(services: Services) -> Folder:
    return Folder(services.files_folder)


@asynccontextmanager
async def copy_at(step: Step, serve: Serve) -> AsyncGenerator[AsyncClient]:
    """A client of a copy of the app that runs at this step."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FILES_STORE", step)
        app = with_pictures(bare_app())
    async with serve(app) as client:
        yield client


async def sha256_of_picture(client: AsyncClient, name: str) -> str:
    """The file as its link shows it, and as the business reads it."""
    link = (await client.get(f"/link/{name}")).json()
    followed = await client.get(link, follow_redirects=True)
    seen = await client.post(f"/completion/{name}")
    assert followed.status_code == seen.status_code == 200
    assert followed.headers["content-type"] == "image/png"
    digest: str = seen.json()
    assert sha256(followed.content).hexdigest() == digest
    return digest


async def upload(client: AsyncClient, content: bytes, to: AsyncClient | None = None) -> None:
    request = (await client.get(f"/upload/one?size={len(content)}")).json()
    sent = await (to or client).request(**request, content=content)
    assert sent.status_code == 200


@pytest.mark.parametrize("step", BOTH)
async def test_during_the_move_a_file_is_found_in_either_place(
    folder: Folder, bucket: Bucket, serve: Serve, step: Step
) -> None:
    await folder.put("pictures/ada", chunks(b"in the folder"), 13)
    await bucket.put("pictures/grace", chunks(b"in the bucket"), 13)

    async with copy_at(step, serve) as client:
        assert await sha256_of_picture(client, "ada") == sha256(b"in the folder").hexdigest()
        assert await sha256_of_picture(client, "grace") == sha256(b"in the bucket").hexdigest()
        link = (await client.get("/link/nobody")).json()
        assert (await client.get(link, follow_redirects=True)).status_code == 404
        assert (await client.post("/completion/nobody")).status_code == 404


@pytest.mark.parametrize(
    ("step", "goes_to_s3"),
    [(Step.FOLDER, False), (Step.READ_BOTH, False), (Step.UPLOAD_TO_S3, True), (Step.S3, True)],
)
async def test_an_upload_goes_where_the_step_says(
    folder: Folder, bucket: Bucket, serve: Serve, step: Step, goes_to_s3: bool
) -> None:
    async with copy_at(step, serve) as client:
        await upload(client, b"a picture")

    assert (await bucket.size("pictures/one") is not None) is goes_to_s3
    assert await folder.path("pictures/one").exists() is not goes_to_s3


@pytest.mark.parametrize(("one", "other"), [*NEIGHBOURS, *((b, a) for a, b in NEIGHBOURS)])
async def test_links_of_one_step_work_at_its_neighbours(
    bucket: Bucket, serve: Serve, one: Step, other: Step
) -> None:
    """During a rolling deploy, a client meets copies of both steps."""
    async with copy_at(one, serve) as here, copy_at(other, serve) as there:
        await upload(here, b"a picture", to=there)

        digest = sha256(b"a picture").hexdigest()
        assert await sha256_of_picture(here, "one") == digest
        assert await sha256_of_picture(there, "one") == digest
        link = (await here.get("/link/one")).json()
        assert (await there.get(link, follow_redirects=True)).content == b"a picture"


@pytest.mark.parametrize("step", BOTH)
async def test_a_deleted_file_is_gone_from_both_places(
    folder: Folder, bucket: Bucket, serve: Serve, step: Step
) -> None:
    for place in (folder, bucket):
        await place.put("pictures/one", chunks(b"hello"), 5)

    async with copy_at(step, serve) as client:
        await client.delete("/picture/one")

        assert (await client.post("/completion/one")).status_code == 404
    assert await bucket.size("pictures/one") is None


async def test_an_upload_link_works_once_wherever_the_file_went(
    bucket: Bucket, serve: Serve
) -> None:
    async with copy_at(Step.READ_BOTH, serve) as old, copy_at(Step.UPLOAD_TO_S3, serve) as new:
        request = (await old.get("/upload/one?size=5")).json()
        assert (await new.request(**request, content=b"first")).status_code == 200

        assert (await old.request(**request, content=b"other")).status_code == 409
        assert (await new.request(**request, content=b"other")).status_code == 409
    assert [chunk async for chunk in bucket.get("pictures/one")] == [b"first"]


@pytest.mark.parametrize(
    ("step", "stays_on_disk"), [(Step.READ_BOTH, True), (Step.UPLOAD_TO_S3, False)]
)
async def test_a_deletion_removes_the_original_first(
    folder: Folder, own_server: rclone.S3, serve: Serve, step: Step, stays_on_disk: bool
) -> None:
    """Otherwise a copier that has just checked the original would leave its copy."""
    await folder.put("pictures/one", chunks(b"hello"), 5)
    async with copy_at(step, serve) as client:
        own_server.die()

        assert (await client.delete("/picture/one")).status_code == 503

    assert await folder.path("pictures/one").exists() is stays_on_disk
