# Rung's file: advancing to another stage may change it.
"""`make files-orphans` lists the files that no row names, and deletes them."""

import asyncio
import os
from datetime import timedelta
from pathlib import Path

import pytest

from app.infra.s3 import orphans
from app.infra.s3.bucket import Bucket
from tests.infra.s3.pictures import ROWS, Pictures, exit_of
from tests.infra.test_files import chunks


@pytest.fixture
async def orphan(bucket: Bucket, pictures: Pictures) -> str:
    """An orphan beside a picture and a picture that was just deleted."""
    for key in ("pictures/kept", "pictures/deleted", "pictures/orphan"):
        await bucket.put(key, chunks(b"hello"), 5)
    await pictures.noted("pictures/kept", b"hello")
    await pictures.noted("pictures/deleted", b"hello")
    await pictures.deleted("pictures/deleted")
    return "pictures/orphan"


@pytest.fixture
def a_day_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "LEFT_ALONE_FOR", timedelta(0))


async def look(*options: str, rows: str = ROWS) -> str | int | None:
    return await asyncio.to_thread(exit_of, orphans.main, ["--rows", rows, *options])


@pytest.mark.usefixtures("a_day_later")
async def test_orphans_are_listed_and_deleted_only_with_delete(
    orphan: str, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await look() == 0
    assert capsys.readouterr().out == f"{orphan}\n1 orphan(s) found\n"
    assert await bucket.size(orphan) == 5

    assert await look("--delete") == 0
    assert [key async for key in bucket.keys()] == ["pictures/deleted", "pictures/kept"]  # noqa: SIM118  # no dictionary


@pytest.mark.usefixtures("a_day_later")
async def test_files_of_a_modules_own_database_are_kept(
    orphan: str, bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE_BILLING_DATABASE_URL", "postgresql://billing")
    await bucket.put("invoices/1", chunks(b"hello"), 5)

    assert "MODULE_BILLING_DATABASE_URL" in str(await look("--delete"))
    assert await bucket.size(orphan) == 5

    keys = tmp_path / "keys"
    keys.write_text("invoices/1\n")
    assert await look("--delete", "--also", str(keys)) == 0
    assert await bucket.size(orphan) is None
    assert await bucket.size("invoices/1") == 5


@pytest.mark.usefixtures("a_day_later")
async def test_a_file_that_is_newer_than_the_further_keys_is_kept(
    orphan: str, bucket: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = tmp_path / "keys"
    keys.touch()
    os.utime(keys, (0, 0))

    assert await look("--delete", "--also", str(keys)) == 0
    assert await bucket.size(orphan) == 5

    assert await look("--delete", "--also", str(tmp_path / "missing")) == 2
    assert "--also" in capsys.readouterr().err


async def test_an_orphan_younger_than_a_day_is_kept(orphan: str, bucket: Bucket) -> None:
    assert await look("--delete") == 0

    assert await bucket.size(orphan) == 5


@pytest.mark.usefixtures("a_day_later")
async def test_a_query_that_finds_no_file_deletes_nothing(orphan: str, bucket: Bucket) -> None:
    nothing = f"{ROWS} WHERE false"

    assert "finds no file" in str(await look("--delete", rows=nothing))

    assert await bucket.size(orphan) == 5


@pytest.mark.usefixtures("services")
def test_without_a_query_the_command_says_how_to_write_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FILES_ROWS", raising=False)

    assert "FILES_ROWS=SELECT key, " in str(exit_of(orphans.main, []))


async def test_the_query_may_come_from_the_environment(
    orphan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILES_ROWS", ROWS)

    assert await asyncio.to_thread(exit_of, orphans.main, []) == 0
