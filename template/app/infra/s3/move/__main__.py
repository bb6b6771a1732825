# Rung's file: advancing to another stage may change it.
"""python -m app.infra.s3.move to-s3: copy all files, then compare the file of every row.

Run it while the service runs, and again if it was killed. The exit code is 1 if the file of a row
is missing, or is not the one that was uploaded.
"""

import argparse
import asyncio
import fcntl
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.infra import environment
from app.infra.failures import ends_in_words
from app.infra.s3.move.copying import Copier, OnDisk, Place, patiently
from app.infra.s3.rows import Row, Rows, command_with_rows, rows_of
from app.infra.s3.settings import FileSettings, Step, bucket_of
from app.infra.stored_files import FileMissing

AT_ONCE = 16

STEPS = {"to-s3": Step.UPLOAD_TO_S3, "to-folder": Step.READ_BOTH}


def main(given: Sequence[str] | None = None) -> None:
    parser = command_with_rows("app.infra.s3.move", __doc__)
    parser.add_argument("way", choices=STEPS)
    arguments = parser.parse_args(given)
    settings = environment.read(FileSettings)
    step = STEPS[arguments.way]
    if settings.store is not step or settings.folder is None:
        found = settings.store or Step.FOLDER
        sys.exit(f"FILES_STORE is {found}: first run every copy of the app with {step}.")
    with ends_in_words(), alone_with(settings.folder) as notes:
        complaints = asyncio.run(_move(settings, notes, arguments))
    if complaints:
        sys.exit("\n".join(complaints))


@contextmanager
def alone_with(folder: Path) -> Generator[Path]:
    """Yields the folder for notes. Ends the process if another one works there."""
    notes = folder / ".moving"
    notes.mkdir(exist_ok=True)
    descriptor = os.open(notes, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("Another process copies the files of this folder. Wait for its end.")
    try:
        yield notes
    finally:
        os.close(descriptor)


async def _move(settings: FileSettings, notes: Path, arguments: argparse.Namespace) -> list[str]:
    assert settings.folder  # noqa: S101  # main() has checked it
    rows = rows_of(arguments)
    async with bucket_of(settings) as bucket:
        folder = OnDisk(settings.folder)
        copiers = {
            "to-s3": Copier(folder, bucket, notes / "to-s3"),
            "to-folder": Copier(bucket, folder, notes / "to-folder"),
        }
        for each in copiers.values():
            await each.undo_unfinished(rows)
        copier = copiers[arguments.way]
        await copier.run(AT_ONCE)
        print(copier)
        complaints = [f"{key}: not the same in both places" for key in copier.differing]
        return complaints + await compare(rows, copier.target)


async def compare(rows: Rows, place: Place) -> list[str]:
    """Returns a line for each row whose file is missing or different."""
    slots = asyncio.Semaphore(AT_ONCE)
    compared = 0
    complaints = []

    async def complaint(row: Row) -> str | None:
        async with slots:
            try:
                facts = await patiently(place.facts, row.key)
            except FileMissing:
                return "not there"
        return None if facts.sha256 == row.sha256 else "not the bytes that were uploaded"

    async for page in rows.pages():
        due = [row for row in page if row.sha256]
        found = dict(zip(due, await asyncio.gather(*map(complaint, due)), strict=True))
        # A file may have been deleted in the meantime.
        still_due = await rows.among(row.key for row in due if found[row])
        complaints += [f"{row.key}: {found[row]}" for row in still_due if row in found]
        compared += len(due)
        print(f"{compared:,} rows compared, {len(complaints):,} not right", flush=True)
    return complaints


if __name__ == "__main__":
    main()
