# Rung's file: advancing to another stage may change it.
"""Shared by all stores of files, in a folder or in S3: keys, facts and errors."""

import re
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from fastapi.responses import Response

from app.infra.failures import Failure

CHUNK_BYTES = 64 * 1024

# For the browser alone. A file never changes under its key.
KEPT_BY_BROWSERS = "private, max-age=3600, immutable"

LONGEST_KEY = 200
KEY = r"[a-z0-9-]+(/[a-z0-9-]+)*"


class FileMissing(Failure):
    """Nothing is stored under that key."""

    status = 404
    title = "There is no such file"


class FileExists(Failure):
    """Keys are immutable: the file under a key never changes."""

    status = 409
    title = "There is a file already"


class WrongSize(Failure):
    """The number of received bytes is not the announced one."""

    status = 422
    title = "The file has another size than announced"


@dataclass(frozen=True, slots=True)
class FileFacts:
    size: int
    sha256: str  # hexadecimal
    head: bytes  # the first 16 bytes: enough to tell an image's type


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """The request with which a client uploads a file: these headers, exactly that size."""

    method: str
    url: str
    headers: dict[str, str]


class FileStore(Protocol):
    """The operations of every store of files. Each raises Unavailable.

    `put` raises FileExists and WrongSize. `get`, `facts` and `answer` raise FileMissing. `facts`
    reads the whole file. `delete` of a missing file is no error. `answer` is for a client that
    followed a link.
    """

    def link(self, key: str, content_type: str) -> str: ...
    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest: ...
    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None: ...
    def get(self, key: str) -> AsyncIterator[bytes]: ...
    async def facts(self, key: str) -> FileFacts: ...
    async def delete(self, key: str) -> None: ...
    async def answer(self, key: str, content_type: str) -> Response: ...


def valid(key: str) -> str:
    """Raises ValueError for a key that might lead out of the folder."""
    if not is_valid(key):
        raise ValueError(
            "a key is lower-case words and digits between slashes, with"
            f" {LONGEST_KEY} characters at most, not {key!r}"
        )
    return key


def is_valid(key: str) -> bool:
    return len(key) <= LONGEST_KEY and re.fullmatch(KEY, key) is not None


async def exactly(chunks: AsyncIterable[bytes], size: int) -> AsyncIterator[bytes]:
    """Raises WrongSize as soon as more than `size` bytes have come. Holds back the last chunk until
    the end, because S3 keeps a complete upload."""
    arrived, last = 0, b""
    async for chunk in chunks:
        arrived += len(chunk)
        if arrived > size:
            raise WrongSize
        if last:
            yield last
        last = chunk
    if arrived != size:
        raise WrongSize
    yield last


async def facts_of(chunks: AsyncIterable[bytes]) -> FileFacts:
    digest, size, head = sha256(), 0, b""
    async for chunk in chunks:
        head = head or chunk[:16]
        digest.update(chunk)
        size += len(chunk)
    return FileFacts(size, digest.hexdigest(), head)
