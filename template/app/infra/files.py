# Rung's file: advancing to another stage may change it.
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from pydantic import DirectoryPath
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra import environment
from app.infra.failures import Failure
from app.infra.folder import FileExists, FileMissing, Folder, WrongSize
from app.infra.signing import Signer, signer_of

__all__ = ["FileExists", "FileMissing", "Files", "LinkInvalid", "UploadRequest", "WrongSize"]

# For the browser alone: what is stored under a key never changes.
KEPT_BY_BROWSERS = "private, max-age=3600, immutable"


class FileSettings(BaseSettings):
    """Durations are ISO 8601 (PT15M) or seconds."""

    model_config = SettingsConfigDict(env_prefix="FILES_")

    folder: DirectoryPath
    link_lifetime: timedelta = timedelta(minutes=15)


class LinkInvalid(Failure):
    """The link was changed, or its time is over."""

    status = 403
    title = "The link is not valid, or no longer"


@dataclass(frozen=True, slots=True)
class UploadRequest:
    """The request with which a client hands over a file: these headers, exactly that size."""

    method: str
    url: str
    headers: dict[str, str]


class LinkedFolder(Folder):
    """Private files, reached from outside only through links that expire."""

    def __init__(self, settings: FileSettings, signer: Signer, base_url: str) -> None:
        super().__init__(settings.folder)
        self._lifetime = settings.link_lifetime
        self._signer = signer
        self._base_url = base_url

    def link(self, key: str, content_type: str) -> str:
        return self._signed_url("GET", key, content_type)

    def upload_request(self, key: str, content_type: str, size: int) -> UploadRequest:
        url = self._signed_url("PUT", key, content_type, size)
        return UploadRequest("PUT", url, {"content-type": content_type})

    def check(self, signature: str, expires: int, method: str, key: str, *facts: object) -> None:
        """Raises LinkInvalid."""
        signed = self._signer.is_valid(signature, "file", method, key, expires, *facts)
        if not signed or expires < time.time():
            raise LinkInvalid

    def _signed_url(self, method: str, key: str, *facts: object) -> str:
        self.path(key)  # a key that no route would take must not become a link
        expires = int(time.time() + self._lifetime.total_seconds())
        signature = self._signer.sign("file", method, key, expires, *facts)
        names = ("expires", "signature", "content_type", "size")
        query = dict(zip(names, (expires, signature, *facts), strict=False))
        return f"{self._base_url}files/{key}?{urlencode(query)}"


def files_of(request: Request) -> LinkedFolder:
    return LinkedFolder(request.app.state.file_settings, signer_of(request), str(request.base_url))


Files = Annotated[LinkedFolder, Depends(files_of)]
Key = Annotated[str, PathParameter(pattern=r"^[a-z0-9-]+(/[a-z0-9-]+)*$", max_length=200)]
Signature = Annotated[str, Query(max_length=64)]
Expires = Annotated[int, Query(ge=0, lt=2**53)]
ContentType = Annotated[str, Query(max_length=100)]

# The links are made by the domain and followed by clients: their form is nobody's business.
router = APIRouter(prefix="/files", include_in_schema=False)


@router.put("/{key:path}", status_code=204)
async def receive(
    request: Request,
    files: Files,
    key: Key,
    expires: Expires,
    signature: Signature,
    size: Annotated[int, Query(ge=0, lt=2**53)],
    content_type: Annotated[str, Header(max_length=100)],
) -> None:
    files.check(signature, expires, "PUT", key, content_type, size)
    request.scope["body_limit"] = size + 1  # put() itself refuses one byte too many
    await files.put(key, request.stream(), size)


@router.get("/{key:path}")
async def send(
    files: Files, key: Key, expires: Expires, signature: Signature, content_type: ContentType
) -> FileResponse:
    files.check(signature, expires, "GET", key, content_type)
    path = files.path(key)
    if not await path.is_file():
        raise FileMissing(key)
    return FileResponse(path, media_type=content_type, headers={"cache-control": KEPT_BY_BROWSERS})


def install(app: FastAPI) -> None:
    settings = environment.read(FileSettings)
    app.state.file_settings = settings
    Folder(settings.folder).sweep()
    app.include_router(router)
