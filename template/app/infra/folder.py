# Rung's file: advancing to another stage may change it.
"""Files in a folder: stored completely or not at all, even after a crash."""

import errno
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import anyio
from fastapi.responses import FileResponse, Response
from starlette.responses import MalformedRangeHeader
from starlette.types import Receive, Scope, Send

from app.infra.failures import Unavailable
from app.infra.file_links import FileLinks
from app.infra.stored_files import (
    CHUNK_BYTES,
    KEPT_BY_BROWSERS,
    FileExists,
    FileFacts,
    FileMissing,
    UploadRequest,
    exactly,
    facts_of,
    valid,
)

# After this time, no client can still be uploading an unfinished file.
ABANDONED_SECONDS = 24 * 3600

# The disk is full, read-only, broken or gone, or has no hard links, or the process may open no more
# files.
DISK_FAILS = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.EACCES, errno.EPERM, errno.ELOOP, errno.EMFILE, errno.ENFILE),
    *(errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS),
}

# A browser that opens a sound or a film makes a page with a player, which loads the file again.
# Other pages may show a file in a frame. The sandbox allows no script.
POLICY = "default-src 'none'; media-src 'self'; sandbox allow-same-origin"


class Folder:
    def __init__(self, root: Path) -> None:
        self._root = anyio.Path(root)

    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None:
        target = self.path(key)
        with disk():
            try:
                await target.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise FileExists(f"the key {key} begins with the key of a file") from None
            async with self._written_aside(chunks, size) as complete:
                try:
                    # Unlike a rename, a link never replaces an existing file.
                    await target.hardlink_to(complete)
                except FileExistsError:
                    raise FileExists(key) from None
            # A file's name is data of its folder. Without this fsync a crash may lose the name.
            for folder in (target.parent, target.parent.parent):
                await anyio.to_thread.run_sync(_sync_folder, folder)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        with disk():
            try:
                file = await self.path(key).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                raise FileMissing(key) from None
            async with file:
                while chunk := await file.read(CHUNK_BYTES):
                    yield chunk

    async def facts(self, key: str) -> FileFacts:
        return await facts_of(self.get(key))

    async def delete(self, key: str) -> None:
        with disk(), suppress(NotADirectoryError, IsADirectoryError):
            await self.path(key).unlink(missing_ok=True)

    def path(self, key: str) -> anyio.Path:
        return self._root / valid(key)

    def sweep(self) -> None:
        for unfinished in Path(self._root, ".unfinished").glob("*"):
            with suppress(FileNotFoundError):  # another process' upload has just ended
                if time.time() - unfinished.stat().st_mtime > ABANDONED_SECONDS:
                    unfinished.unlink()

    @asynccontextmanager
    async def _written_aside(
        self, chunks: AsyncIterable[bytes], size: int
    ) -> AsyncGenerator[anyio.Path]:
        unfinished = self._root / ".unfinished" / str(uuid4())
        await unfinished.parent.mkdir(parents=True, exist_ok=True)
        try:
            async with await unfinished.open("xb") as file:
                async for chunk in exactly(chunks, size):
                    await file.write(chunk)
                await file.flush()
                await anyio.to_thread.run_sync(os.fsync, file.wrapped.fileno())
            yield unfinished
        finally:
            with anyio.CancelScope(shield=True):
                await unfinished.unlink(missing_ok=True)


class LinkedFolder(Folder):
    """Private files, reached from outside only through links that expire."""

    def __init__(self, root: Path, links: FileLinks) -> None:
        super().__init__(root)
        self._links = links

    def link(self, key: str, content_type: str) -> str:
        return self._links.to_get(key, content_type)

    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest:
        return self._links.to_put(key, content_type, size)

    async def answer(self, key: str, content_type: str) -> Response:
        path = self.path(key)
        with disk():
            if not await path.is_file():
                raise FileMissing(key)
        return FileAnswer(
            # Starlette would add a charset to a media_type of text.
            path,
            headers={
                "content-type": content_type,
                "cache-control": KEPT_BY_BROWSERS,
                "content-security-policy": POLICY,
            },
        )


class FileAnswer(FileResponse):
    """A file may be deleted after its route has looked for it. For HEAD, it is not read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if getattr(scope.get("answer"), "is_head", False):
            scope = {**scope, "method": "HEAD"}
        try:
            await super().__call__(scope, receive, send)
        except RuntimeError as error:  # Starlette's, before it sends anything
            raise FileMissing(str(self.path)) from error

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        """Ignores a range in another unit than bytes, as HTTP asks, and one that is malformed."""
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []


@contextmanager
def disk() -> Iterator[None]:
    """A disk that fails is a server that refuses for now. Other errors may be the caller's: its
    chunks come from a network or another file."""
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_FAILS:
            raise
        raise Unavailable(f"the folder of files: {error}") from error


def _sync_folder(folder: anyio.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
