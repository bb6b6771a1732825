# Rung's file: advancing to another stage may change it.
"""Copies files between the folder and S3, and compares them with the rows."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from app.infra.failures import Unavailable
from app.infra.folder import Folder
from app.infra.s3.bucket import Bucket
from app.infra.s3.rows import Rows
from app.infra.stored_files import FileMissing, is_valid

# Seconds between the attempts to reach S3. After the last one the rest waits for the next run.
PAUSES = (1, 5, 15)

SHOWN_EVERY_SECONDS = 1.0


class OnDisk(Folder):
    async def keys(self) -> AsyncIterator[str]:
        for folder, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            for name in names:
                yield Path(folder, name).relative_to(self._root).as_posix()

    async def size(self, key: str) -> int | None:
        try:
            return (await self.path(key).stat()).st_size
        except FileNotFoundError:
            return None


type Place = OnDisk | Bucket


async def patiently[T](act: Callable[[str], Awaitable[T]], key: str) -> T:
    """Raises Unavailable when S3 stays down."""
    for pause in PAUSES:
        try:
            return await act(key)
        except Unavailable as error:
            print(f"{error}. Trying again in {pause} s", flush=True)
            await asyncio.sleep(pause)
    return await act(key)


@dataclass
class Copier:
    """Copies all files from one place to another, while the app reads, writes and deletes them.

    A note on disk names each file that is being copied. Each direction has its own folder of notes,
    so a note also tells which of two files is the copy. After a kill the next run copies that file
    again, skips finished copies, and removes the copies of files that were deleted in between.
    """

    source: Place
    target: Place
    notes: Path
    copied: int = 0
    copied_bytes: int = 0
    were_there: int = 0
    # Keys with different files in the two places.
    differing: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.notes.mkdir(exist_ok=True)

    async def undo_unfinished(self, rows: Rows) -> None:
        """Cleans up after the previous run. Raises Unavailable when S3 stays down."""
        for note in list(self.notes.iterdir()):
            key = note.name.replace("+", "/")
            # Without an original, delete the copy only if no row names it. An emptied folder or a
            # wrong bucket looks as if all files had been deleted.
            if await patiently(self.source.size, key) is not None or not await rows.want(key):
                await patiently(self.target.delete, key)
            note.unlink()

    async def run(self, at_once: int) -> None:
        """Raises Unavailable when S3 stays down."""
        slots = asyncio.Semaphore(at_once)
        shown_at = time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                async for key in self.source.keys():
                    if not is_valid(key):
                        print(f"{key}: not this app's, so it stays there")
                        continue
                    await slots.acquire()
                    copying = group.create_task(patiently(self._copy, key))
                    copying.add_done_callback(lambda _: slots.release())
                    if time.monotonic() - shown_at > SHOWN_EVERY_SECONDS:
                        shown_at = time.monotonic()
                        print(self, flush=True)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None  # the first to fail stopped the others

    def __str__(self) -> str:
        megabytes = self.copied_bytes / 1e6
        return f"{self.copied:,} files copied, {megabytes:,.1f} MB; {self.were_there:,} were there"

    async def _copy(self, key: str) -> None:
        size, there = await self.source.size(key), await self.target.size(key)
        if there is not None and not self._note(key).exists():
            self.were_there += 1
            if size not in {there, None}:
                self.differing.append(key)
            return
        self._note(key).touch()
        if there is not None:
            await self.target.delete(key)
        with suppress(FileMissing):  # deleted since it was listed
            await self._send(key)
        await self._settle(key)

    async def _send(self, key: str) -> None:
        size = await self.source.size(key)
        if size is None:
            return
        sent = sha256()

        async def chunks() -> AsyncIterator[bytes]:
            async for chunk in self.source.get(key):
                sent.update(chunk)
                yield chunk

        await self.target.put(key, chunks(), size)
        if (await self.target.facts(key)).sha256 != sent.hexdigest():
            await self.target.delete(key)
            self.differing.append(key)
            return
        self.copied += 1
        self.copied_bytes += size

    async def _settle(self, key: str) -> None:
        # A deletion begins with the original. While the original exists, the copy is deleted later.
        # When it is gone, the deletion may have come before the copy was there.
        if await self.source.size(key) is None:
            await self.target.delete(key)
        self._note(key).unlink()

    def _note(self, key: str) -> Path:
        return self.notes / key.replace("/", "+")
