# Rung's file: advancing to another stage may change it.
"""Files: the seam for domain code, and the routes that signed links lead to."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request
from fastapi import Path as PathParameter
from fastapi.responses import Response
from pydantic import DirectoryPath, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict
from starlette.requests import HTTPConnection

from app.infra import environment
from app.infra.environment import Duration
from app.infra.file_links import FileLinks, LinkInvalid
from app.infra.folder import Folder, LinkedFolder
from app.infra.stored_files import (
    KEY,
    LONGEST_KEY,
    FileExists,
    FileMissing,
    FileStore,
    UploadRequest,
    WrongSize,
)

__all__ = ["FileExists", "FileMissing", "Files", "LinkInvalid", "UploadRequest", "WrongSize"]


class FileSettings(BaseSettings):
    """Durations are ISO 8601: PT15M."""

    model_config = SettingsConfigDict(env_prefix="FILES_")

    folder: DirectoryPath
    link_lifetime: Duration = timedelta(minutes=15)


class LinkSettings(BaseSettings):
    """Where clients reach this service. Unset: at the Host that each request names."""

    public_url: HttpUrl | None = None


@dataclass
class Served:
    """The store of this process, for links of one request."""

    store: Callable[[FileLinks], FileStore]
    link_lifetime: timedelta
    public_url: HttpUrl | None


def links_of(request: HTTPConnection) -> FileLinks:
    served: Served = request.app.state.files
    base_url = str(served.public_url or request.base_url)
    if base_url.startswith("ws"):  # the request opens a WebSocket
        base_url = base_url.replace("ws", "http", 1)
    signer = request.app.state.signer
    return FileLinks(signer, f"{base_url.rstrip('/')}/", served.link_lifetime)


def files_of(request: HTTPConnection) -> FileStore:
    served: Served = request.app.state.files
    return served.store(links_of(request))


Files = Annotated[FileStore, Depends(files_of)]
Links = Annotated[FileLinks, Depends(links_of)]
Key = Annotated[str, PathParameter(pattern=f"^{KEY}$", max_length=LONGEST_KEY)]
Signature = Annotated[str, Query(max_length=64)]
Expires = Annotated[int, Query(ge=0, lt=2**53)]
ContentType = Annotated[str, Query(max_length=255)]

# Domain code creates the links and clients follow them, so their form is not part of the API.
router = APIRouter(prefix="/files", include_in_schema=False)


@router.put("/{key:path}", response_class=Response)
async def receive(
    request: Request,
    files: Files,
    links: Links,
    key: Key,
    expires: Expires,
    signature: Signature,
    size: Annotated[int, Query(ge=0, lt=2**53)],
    content_type: Annotated[str, Header(max_length=255)],
) -> Response:
    links.check(signature, expires, "PUT", key, content_type, size)
    request.scope["body_limit"] = size + 1  # put() itself refuses one byte too many
    await files.put(key, request.stream(), size)
    return Response()


@router.get("/{key:path}", response_class=Response)
async def send(
    files: Files,
    links: Links,
    key: Key,
    expires: Expires,
    signature: Signature,
    content_type: ContentType,
) -> Response:
    links.check(signature, expires, "GET", key, content_type)
    return await files.answer(key, content_type)


def install(app: FastAPI) -> None:
    settings = environment.read(FileSettings)
    Folder(settings.folder).sweep()
    serve(app, lambda links: LinkedFolder(settings.folder, links), settings.link_lifetime)


def serve(app: FastAPI, store: Callable[[FileLinks], FileStore], link_lifetime: timedelta) -> None:
    public_url = environment.read(LinkSettings).public_url
    app.state.files = Served(store, link_lifetime, public_url)
    app.include_router(router)
