# Rung's file: advancing to another stage may change it.
"""`make files-to-s3` copies all files and compares them, also after a kill."""

import asyncio
import os
from collections.abc import AsyncIterator
from hashlib import sha256
from pathlib import Path

import pytest

from app.infra import environment
from app.infra.s3.bucket import Bucket
from app.infra.s3.move import __main__ as mover
from app.infra.s3.move import copying
from app.infra.s3.move.copying import Copier, OnDisk
from app.infra.s3.rows import Rows
from app.infra.s3.settings import FileSettings, bucket_of
from dev.pytest_plugin import Services
from dev.s3 import rclone
from tests.infra.s3.pictures import ROWS, Pictures, exit_of
from tests.infra.test_files import chunks, stored

# A service moves once, and its tests take seconds.
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("at_the_step")]


@pytest.fixture
def at_the_step(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILES_STORE", "upload-to-s3")


def leave_note(services: Services, folder: str) -> None:
    """Writes the note that a killed copy process leaves while it copies pictures/ada."""
    notes = services.files_folder / folder
    notes.mkdir(parents=True)
    (notes / "pictures+ada").touch()


async def move(way: str = "to-s3") -> str | int | None:
    return await asyncio.to_thread(exit_of, mover.main, [way, "--rows", ROWS])


async def test_all_files_are_copied_and_compared_and_a_second_run_has_nothing_to_do(
    pictures: Pictures, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    contents = {name: os.urandom(10_000) for name in ("ada", "grace", "edsger/1", "edsger/2")}
    for name, content in contents.items():
        await pictures.uploaded(name, content)

    assert await move() == 0
    told = capsys.readouterr().out
    assert "4 files copied, 0.0 MB; 0 were there" in told
    assert "4 rows compared, 0 not right" in told

    assert await move() == 0
    assert "0 files copied, 0.0 MB; 4 were there" in capsys.readouterr().out

    for name, content in contents.items():
        facts = await bucket.facts(f"pictures/{name}")
        assert facts.sha256 == sha256(content).hexdigest()


async def test_a_flipped_byte_on_disk_is_found(pictures: Pictures) -> None:
    await pictures.uploaded("ada", b"as it was")
    damaged = await pictures.uploaded("grace", b"as it was")
    await pictures.folder.path(damaged).write_bytes(b"as it wes")

    assert await move() == f"{damaged}: not the bytes that were uploaded"


async def test_a_row_without_a_file_is_found_unless_it_was_deleted(pictures: Pictures) -> None:
    for name in ("lost", "deleted"):
        await pictures.folder.delete(await pictures.uploaded(name, b"hello"))
    await pictures.deleted("pictures/deleted")

    assert await move() == "pictures/lost: not there"


async def test_files_that_are_not_the_apps_stay_where_they_are(
    pictures: Pictures, capsys: pytest.CaptureFixture[str]
) -> None:
    await pictures.folder.path("pictures").mkdir()
    await (pictures.folder.path("pictures") / "README.TXT").write_text("Do not delete")

    assert await move() == 0

    assert "pictures/README.TXT: not this app's" in capsys.readouterr().out


async def test_an_object_that_is_not_the_file_of_its_key_is_left_and_named(
    pictures: Pictures, bucket: Bucket
) -> None:
    key = await pictures.uploaded("ada", b"as it was")
    await bucket.put(key, chunks(b"something else"), 14)

    assert f"{key}: not the same in both places\n" in str(await move())
    assert await bucket.size(key) == 14


async def test_a_file_deleted_while_its_copier_was_dead_does_not_come_back(
    pictures: Pictures, bucket: Bucket, services: Services
) -> None:
    await bucket.put("pictures/ada", chunks(b"hello"), 5)
    await pictures.deleted(await pictures.noted("pictures/ada", b"hello"))
    leave_note(services, ".moving/to-s3")

    assert await move() == 0

    assert await bucket.size("pictures/ada") is None
    assert stored(services.files_folder) == []


async def test_a_file_deleted_while_it_is_copied_does_not_come_back(
    pictures: Pictures, bucket: Bucket, services: Services, tmp_path: Path
) -> None:
    class DeletedOnceRead(OnDisk):
        async def get(self, key: str) -> AsyncIterator[bytes]:
            async for chunk in super().get(key):
                yield chunk
            await self.delete(key)

    await pictures.uploaded("ada", b"hello")
    notes = tmp_path / "notes"

    await Copier(DeletedOnceRead(services.files_folder), bucket, notes).run(1)

    assert await bucket.size("pictures/ada") is None
    assert stored(notes) == []


async def test_the_file_of_a_killed_copier_is_copied_again(
    pictures: Pictures, bucket: Bucket, services: Services
) -> None:
    key = await pictures.uploaded("ada", b"the whole picture")
    await bucket.put(key, chunks(b"a part"), 6)
    leave_note(services, ".moving/to-s3")

    assert await move() == 0

    assert [chunk async for chunk in bucket.get(key)] == [b"the whole picture"]


async def test_the_move_back_does_not_treat_a_partial_copy_as_the_file(
    pictures: Pictures, bucket: Bucket, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await pictures.uploaded("ada", b"the whole picture")
    await bucket.put(key, chunks(b"a part"), 6)
    leave_note(services, ".moving/to-s3")

    monkeypatch.setenv("FILES_STORE", "read-both")
    assert await move("to-folder") == 0

    assert [chunk async for chunk in pictures.folder.get(key)] == [b"the whole picture"]


@pytest.mark.parametrize("way", mover.STEPS)
@pytest.mark.parametrize("only_in", ["the folder", "S3"])
@pytest.mark.parametrize("notes", [".moving/to-s3", ".moving/to-folder", ".moving"])
async def test_a_note_from_an_earlier_run_never_deletes_the_only_copy_of_a_file(
    pictures: Pictures,
    bucket: Bucket,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    notes: str,
    only_in: str,
    way: str,
) -> None:
    """The rows are the moments of a kill, and the later states of the folder and the bucket."""
    place = pictures.folder if only_in == "the folder" else bucket
    await place.put("pictures/ada", chunks(b"hello"), 5)
    await pictures.noted("pictures/ada", b"hello")
    leave_note(services, notes)

    monkeypatch.setenv("FILES_STORE", mover.STEPS[way])
    await move(way)

    assert [chunk async for chunk in place.get("pictures/ada")] == [b"hello"]


async def test_the_move_waits_until_s3_answers_again(
    pictures: Pictures, own_server: rclone.S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_STORE", "upload-to-s3")
    await pictures.uploaded("ada", b"hello")
    own_server.die()
    moving = asyncio.create_task(move())
    await asyncio.sleep(0.5)
    await asyncio.to_thread(own_server.start)
    assert await moving == 0

    own_server.die()
    monkeypatch.setattr(copying, "PAUSES", ())
    assert str(await move()).endswith("Nothing is lost. Once the cause is gone, run this again.")


async def test_the_comparison_waits_until_s3_answers_again(
    pictures: Pictures, own_server: rclone.S3
) -> None:
    key = await pictures.uploaded("ada", b"hello")
    async with bucket_of(environment.read(FileSettings)) as bucket:
        await bucket.put(key, chunks(b"hello"), 5)
        own_server.die()
        comparing = asyncio.create_task(mover.compare(Rows(ROWS), bucket))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(own_server.start)

        assert await comparing == []


async def test_an_empty_list_of_keys_sends_no_query() -> None:
    assert await Rows("SELECT key FROM paintings").among([]) == []


async def test_files_are_copied_back_to_the_folder(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pictures.uploaded("ada", b"hello")
    await move()
    await pictures.folder.delete("pictures/ada")

    monkeypatch.setenv("FILES_STORE", "read-both")
    assert await move("to-folder") == 0
    assert [chunk async for chunk in pictures.folder.get("pictures/ada")] == [b"hello"]


@pytest.mark.parametrize(
    ("step", "way", "needed"),
    [
        ("folder", "to-s3", "upload-to-s3"),
        ("read-both", "to-s3", "upload-to-s3"),
        ("upload-to-s3", "to-folder", "read-both"),
        ("s3", "to-s3", "upload-to-s3"),
    ],
)
async def test_at_another_step_nothing_is_copied(
    monkeypatch: pytest.MonkeyPatch, step: str, way: str, needed: str
) -> None:
    monkeypatch.setenv("FILES_STORE", step)

    assert f"first run every copy of the app with {needed}" in str(await move(way))


async def test_only_one_copier_works_on_a_folder(services: Services) -> None:
    with mover.alone_with(services.files_folder):
        assert await move() == "Another process copies the files of this folder. Wait for its end."


async def test_an_invalid_query_is_reported_without_a_traceback(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "ROWS", "SELECT key FROM paintings")
    assert 'relation "paintings" does not exist' in str(await move())
