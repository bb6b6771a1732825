from typing import Annotated
from uuid import UUID

import structlog
from fastapi import APIRouter, Depends
from fastapi.responses import RedirectResponse

from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.failures import Unavailable
from app.infra.files import Files
from app.infra.sessions import CurrentUser
from app.uploads import queries, service
from app.uploads.queries import CompletedUpload
from app.uploads.schemas import UploadIn, UploadOut, UploadStarted

log = structlog.get_logger()

router = APIRouter(prefix="/uploads", tags=["uploads"])


async def own_upload(read: ReadSession, user: CurrentUser, upload_id: UUID) -> CompletedUpload:
    upload = await queries.completed_upload(read, user.id, upload_id)
    if upload is None:
        raise service.NoSuchUpload
    return upload


OwnUpload = Annotated[CompletedUpload, Depends(own_upload)]


@router.post(
    "", status_code=201, summary="Announce an image", responses=problems(400, 401, 403, 413)
)
async def start_upload(
    write: WriteSession, files: Files, user: CurrentUser, announced: UploadIn
) -> UploadStarted:
    """Send the bytes with the request in the answer. Then complete the upload."""
    try:
        await service.sweep(write, files)
    except Unavailable as error:  # the next start_upload tries again
        log.warning("files of old uploads were not deleted", reason=str(error))
    upload = await service.start_upload(write, user.id, announced)
    send_to = files.upload_request(upload.key, upload.content_type, upload.size)
    return UploadStarted.model_validate({"id": upload.id, "send_to": send_to}, from_attributes=True)


@router.post(
    "/{upload_id}/completion",
    summary="Complete an upload",
    responses=problems(401, 403, 404, 409),
)
async def complete_upload(
    write: WriteSession, files: Files, user: CurrentUser, upload_id: UUID
) -> UploadOut:
    upload = await service.complete_upload(write, files, user.id, upload_id)
    return _shown(CompletedUpload.model_validate(upload, from_attributes=True), files)


@router.get("/{upload_id}", summary="Show an upload", responses=problems(401, 404))
async def show_upload(upload: OwnUpload, files: Files) -> UploadOut:
    return _shown(upload, files)


@router.get(
    "/{upload_id}/image",
    status_code=307,
    summary="Get the image",
    response_class=RedirectResponse,
    responses=problems(401, 404),
)
async def get_image(upload: OwnUpload, files: Files) -> str:
    """The redirect may lead to another server: do not send your token there."""
    return files.link(upload.key, upload.content_type)


@router.delete(
    "/{upload_id}", status_code=204, summary="Delete an upload", responses=problems(401, 403, 404)
)
async def delete_upload(
    write: WriteSession, files: Files, user: CurrentUser, upload_id: UUID
) -> None:
    await service.delete_upload(write, files, user.id, upload_id)


def _shown(upload: CompletedUpload, files: Files) -> UploadOut:
    link = files.link(upload.key, upload.content_type)
    return UploadOut(**upload.model_dump(exclude={"key"}), link=link)
