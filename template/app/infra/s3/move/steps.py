# Rung's file: advancing to another stage may change it.
"""Files move from a folder to S3, a deploy for each step, and each is found meanwhile.

Copies of two neighbouring steps work side by side, whichever way the deploy goes: where a step
puts files, its neighbours look for them.
"""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from fastapi import FastAPI
from fastapi.responses import Response
from pydantic import Field, HttpUrl, PositiveFloat, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra import health
from app.infra.file_links import FileLinks, UploadRequest
from app.infra.folder import FileExists, FileFacts, Folder
from app.infra.linked_folder import LinkedFolder
from app.infra.s3.bucket import Bucket
from app.infra.s3.signing import S3Signer


class Step(StrEnum):
    FOLDER = "folder"
    # Uploads go to the folder, and a file is found in both.
    READ_BOTH = "read-both"
    # Uploads go to S3, and a file is found in both. `make files-to-s3` copies those that are older.
    UPLOAD_TO_S3 = "upload-to-s3"
    S3 = "s3"


class FileSettings(BaseSettings):
    """Durations are ISO 8601 (PT15M) or seconds."""

    model_config = SettingsConfigDict(env_prefix="FILES_", env_ignore_empty=True)

    store: Step | None = None
    folder: Path | None = Field(default=None, validate_default=True)
    # Without dots, which the certificates of its subdomain at Amazon do not cover.
    bucket: str | None = Field(
        default=None, validate_default=True, pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$"
    )
    s3_region: str = Field(default="us-east-1", pattern=r"^[a-z0-9-]+$")
    # Where it is not Amazon's.
    s3_endpoint: HttpUrl | None = None
    s3_seconds: PositiveFloat = 5
    # S3 takes no signature for longer than a week.
    link_lifetime: timedelta = Field(default=timedelta(minutes=15), le=timedelta(days=7))

    @field_validator("folder")
    @classmethod
    def _is_there(cls, folder: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("store") is Step.S3:
            return None
        if folder is None or not folder.is_dir():
            raise ValueError("must be a folder that exists")
        return folder

    @field_validator("bucket")
    @classmethod
    def _is_there_for_something(cls, bucket: str | None, info: ValidationInfo) -> str | None:
        store = info.data.get("store")
        if bucket and store is None:
            raise ValueError(
                "set FILES_STORE too: s3, or while files are in a folder, the step of their move"
                " that docs/runbooks/to-stage-4.md is at"
            )
        if not bucket and store not in {None, Step.FOLDER}:
            raise ValueError(f"must be set with FILES_STORE={store}")
        return bucket if store is not Step.FOLDER else None

    @property
    def s3_address(self) -> str:
        if self.s3_endpoint:
            return f"{str(self.s3_endpoint).rstrip('/')}/{self.bucket}"
        return f"https://{self.bucket}.s3.{self.s3_region}.amazonaws.com"


class FileStore(Protocol):
    """What domain code may ask of `files`, wherever they are. Raises Unavailable."""

    def link(self, key: str, content_type: str) -> str: ...
    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest: ...
    async def put(self, key: str, chunks: AsyncIterable[bytes], size: int) -> None: ...
    def get(self, key: str) -> AsyncIterator[bytes]: ...
    async def facts(self, key: str) -> FileFacts: ...
    async def delete(self, key: str) -> None: ...
    async def answer(self, key: str, content_type: str) -> Response: ...


class BothStores:
    """A file is read where it is, on disk first, for that is one look and no request."""

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
        """Raises FileExists and WrongSize."""
        if await self._is_on_disk(key) or await self._bucket.size(key) is not None:
            raise FileExists(key)
        await self._filled.put(key, chunks, size)

    async def get(self, key: str) -> AsyncIterator[bytes]:
        """Raises FileMissing."""
        async for chunk in (await self._store_of(key)).get(key):
            yield chunk

    async def facts(self, key: str) -> FileFacts:
        """Reads the whole file. Raises FileMissing."""
        return await (await self._store_of(key)).facts(key)

    async def delete(self, key: str) -> None:
        """Deleting what is not there is no error."""
        # In this order nothing comes back: who copies looks afterwards whether the original is
        # still there. If it is, this has yet to delete the copy; if not, the copier does.
        await self._emptied.delete(key)
        await self._filled.delete(key)

    async def answer(self, key: str, content_type: str) -> Response:
        """Raises FileMissing."""
        return await (await self._store_of(key)).answer(key, content_type)

    async def _store_of(self, key: str) -> FileStore:
        return self._folder if await self._is_on_disk(key) else self._bucket

    async def _is_on_disk(self, key: str) -> bool:
        return await self._folder.path(key).is_file()


class Stores:
    """Those of this step."""

    def __init__(self, settings: FileSettings) -> None:
        self._settings = settings
        self.bucket = bucket_of(settings) if settings.bucket else None
        if settings.folder:
            Folder(settings.folder).sweep()

    def linked(self, links: FileLinks) -> FileStore:
        folder = LinkedFolder(self._settings.folder, links) if self._settings.folder else None
        if folder and self.bucket:
            upload_to_s3 = self._settings.store is Step.UPLOAD_TO_S3
            return BothStores(folder, self.bucket, upload_to_s3=upload_to_s3)
        store = folder or self.bucket
        assert store  # noqa: S101  # the settings see to it
        return store


def install(app: FastAPI, settings: FileSettings) -> None:
    stores = app.state.file_stores = Stores(settings)
    if stores.bucket:
        health.add_readiness_check(app, "files", stores.bucket.check)


def bucket_of(settings: FileSettings) -> Bucket:
    signer = S3Signer(settings.s3_address, settings.s3_region)
    return Bucket(signer, settings.link_lifetime, settings.s3_seconds)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    stores: Stores = app.state.file_stores
    async with stores.bucket or nullcontext():
        yield
