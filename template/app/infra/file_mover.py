# Rung's file: advancing to another stage may change it.
"""python -m app.infra.file_mover to-s3 --rows QUERY: copy all files, then compare every row's.

Runs while the service does. Killed at any moment, it is run again. Exit code 1 if a row's file is
not there, or is not the one that was uploaded.
"""

import argparse
import asyncio
import fcntl
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg

from app.infra import environment
from app.infra.failures import Unavailable
from app.infra.file_move import FileSettings, Step, bucket_of
from app.infra.file_move_copy import Copier, OnDisk, Place
from app.infra.file_move_rows import Row, Rows
from app.infra.folder import FileMissing

STEPS = {"to-s3": Step.UPLOAD_TO_S3, "to-folder": Step.READ_BOTH}


def main(given: Sequence[str] | None = None) -> None:
    arguments = _arguments(given)
    settings = environment.read(FileSettings)
    step = STEPS[arguments.way]
    if settings.store is not step or settings.folder is None:
        found = settings.store or Step.FOLDER
        sys.exit(f"FILES_STORE is {found}: first run every copy of the app with {step}.")
    try:
        with alone_with(settings.folder) as notes:
            complaints = asyncio.run(_move(settings, notes, arguments))
    except Unavailable as error:
        sys.exit(f"{error}\nNothing is lost. When it answers again, run this again.")
    except asyncpg.PostgresError as error:
        sys.exit(f"Postgres did not answer the query of --rows: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    if complaints:
        sys.exit("\n".join(complaints))


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m app.infra.file_mover")
    parser.add_argument("way", choices=STEPS)
    parser.add_argument(
        "--rows",
        required=True,
        metavar="QUERY",
        help="what the database says: SELECT key, sha256 of each file, sha256 NULL if none is due",
    )
    parser.add_argument("--at-once", type=int, default=16, help="how many files (default: 16)")
    return parser.parse_args(given)


@contextmanager
def alone_with(folder: Path) -> Generator[Path]:
    """Where to take notes. Stops the process when another one is there."""
    notes = folder / ".moving"
    notes.mkdir(exist_ok=True)
    descriptor = os.open(notes, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield notes
    except BlockingIOError:
        sys.exit("Another one is at work on this folder.")
    finally:
        os.close(descriptor)


async def _move(settings: FileSettings, notes: Path, arguments: argparse.Namespace) -> list[str]:
    assert settings.folder  # noqa: S101  # main() saw to it
    rows = Rows(arguments.rows)
    async with bucket_of(settings) as bucket:
        folder = OnDisk(settings.folder)
        source, target = (folder, bucket) if arguments.way == "to-s3" else (bucket, folder)
        copier = Copier(source, target, notes)
        await copier.run(arguments.at_once)
        print(copier)
        complaints = [f"{key}: not the same in both places" for key in copier.differing]
        return complaints + await compare(rows, target, arguments.at_once)


async def compare(rows: Rows, place: Place, at_once: int) -> list[str]:
    """What does not agree, in words."""
    slots = asyncio.Semaphore(at_once)
    compared = 0
    complaints = []

    async def complaint(row: Row) -> str | None:
        async with slots:
            try:
                facts = await place.facts(row.key)
            except FileMissing:
                return "not there"
        return None if facts.sha256 == row.sha256 else "not the bytes that were uploaded"

    async for page in rows.pages():
        due = [row for row in page if row.sha256]
        found = dict(zip(due, await asyncio.gather(*map(complaint, due)), strict=True))
        # A file may have been deleted while we looked for it.
        still_due = await rows.among(row.key for row in due if found[row])
        complaints += [f"{row.key}: {found[row]}" for row in still_due if row in found]
        compared += len(due)
        print(f"{compared:,} rows compared, {len(complaints):,} not right", flush=True)
    return complaints


if __name__ == "__main__":
    main()
