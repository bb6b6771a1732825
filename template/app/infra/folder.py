# Rung's file: advancing to another stage may change it.
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import uuid4

import anyio

CHUNK_BYTES = 64 * 1024


class FileMissing(Exception):
    """Nothing is stored under that key."""


class FileExists(Exception):
    """Keys are immutable: what is stored under one never changes."""


class WrongSize(Exception):
    """The bytes that arrived are not as many as announced."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    size: int
    sha256: str  # hexadecimal
    head: bytes  # the first 16 bytes: enough to tell an image's type


class Folder:
    """Files in a folder. A file is there whole or not at all, also after a crash."""

    def __init__(self, root: Path) -> None:
        self._root = anyio.Path(root)

    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None:
        """Raises FileExists, and WrongSize as soon as more than `size` bytes have come."""
        target = self.path(key)
        await target.parent.mkdir(parents=True, exist_ok=True)
        async with self._written_aside(chunks, size) as complete:
            try:
                # Unlike a rename, a link never replaces what is there.
                await target.hardlink_to(complete)
            except FileExistsError:
                raise FileExists(key) from None
        await anyio.to_thread.run_sync(_sync_folder, target.parent)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Raises FileMissing."""
        try:
            file = await self.path(key).open("rb")
        except FileNotFoundError:
            raise FileMissing(key) from None
        async with file:
            while chunk := await file.read(CHUNK_BYTES):
                yield chunk

    async def facts(self, key: str) -> FileFacts:
        """Reads the whole file. Raises FileMissing."""
        digest, size, head = sha256(), 0, b""
        async for chunk in self.get(key):
            head = head or chunk[:16]
            digest.update(chunk)
            size += len(chunk)
        return FileFacts(size, digest.hexdigest(), head)

    async def delete(self, key: str) -> None:
        """Deleting what is not there is no error."""
        await self.path(key).unlink(missing_ok=True)

    def path(self, key: str) -> anyio.Path:
        return self._root / key

    @asynccontextmanager
    async def _written_aside(
        self, chunks: AsyncIterable[bytes], size: int
    ) -> AsyncGenerator[anyio.Path]:
        unfinished = self._root / ".unfinished" / str(uuid4())
        await unfinished.parent.mkdir(parents=True, exist_ok=True)
        try:
            await _write(unfinished, chunks, size)
            yield unfinished
        finally:
            with anyio.CancelScope(shield=True):
                await unfinished.unlink(missing_ok=True)


async def _write(path: anyio.Path, chunks: AsyncIterable[bytes], size: int) -> None:
    written = 0
    async with await path.open("xb") as file:
        async for chunk in chunks:
            written += len(chunk)
            if written > size:
                raise WrongSize
            await file.write(chunk)
        if written != size:
            raise WrongSize
        await file.flush()
        await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())


def _sync_folder(folder: anyio.Path) -> None:
    # A file's name is its folder's content: without this a crash may forget it.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
