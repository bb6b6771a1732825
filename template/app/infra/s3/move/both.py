# Rung's file: advancing to another stage may change it.
"""While files move, finds each file in the folder or in S3.

Copies of two neighbouring steps run side by side, in both directions of a deploy. So each step
looks for files where its neighbours put them.
"""

from collections.abc import AsyncIterable, AsyncIterator

from fastapi.responses import Response

from app.infra.folder import LinkedFolder
from app.infra.s3.bucket import Bucket
from app.infra.stored_files import FileExists, FileFacts, FileStore, UploadRequest


class BothStores:
    """Reads a file where it is. The disk comes first, because it needs no request."""

    def __init__(self, folder: LinkedFolder, bucket: Bucket, *, upload_to_s3: bool) -> None:
        self._folder = folder
        self._bucket = bucket
        self._filled: FileStore = bucket if upload_to_s3 else folder
        self._emptied: FileStore = folder if upload_to_s3 else bucket

    def link(self, key: str, content_type: str) -> str:
        return self._folder.link(key, content_type)  # leads to answer(), wherever the file is then

    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest:
        return self._filled.upload_request(key, content_type, size)

    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None:
        if await self._is_on_disk(key) or await self._bucket.size(key) is not None:
            raise FileExists(key)
        await self._filled.put(key, chunks, size)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        async for chunk in (await self._store_of(key)).get(key):
            yield chunk

    async def facts(self, key: str) -> FileFacts:
        return await (await self._store_of(key)).facts(key)

    async def delete(self, key: str) -> None:
        # In this order no deleted file comes back. After each copy, the copier checks whether the
        # original still exists. If not, it deletes the copy. Otherwise the second line does.
        await self._emptied.delete(key)
        await self._filled.delete(key)

    async def answer(self, key: str, content_type: str) -> Response:
        return await (await self._store_of(key)).answer(key, content_type)

    async def _store_of(self, key: str) -> FileStore:
        return self._folder if await self._is_on_disk(key) else self._bucket

    async def _is_on_disk(self, key: str) -> bool:
        return await self._folder.path(key).is_file()
