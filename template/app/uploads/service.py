from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select

from app.errors import Conflict, NotFound, Unprocessable
from app.infra.database import WriteSession
from app.infra.files import Files
from app.infra.folder import FileMissing
from app.uploads.models import Upload
from app.uploads.schemas import UploadIn

# The link to send a file lives minutes; what is not there after a day never comes.
GIVEN_UP_AFTER = timedelta(days=1)

SIGNATURES = {
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
    "image/webp": (b"RIFF",),
}


class NoSuchUpload(NotFound):
    """There is no such upload"""


class NotSentYet(Conflict):
    """The file has not arrived"""


class NotThatImage(Unprocessable):
    """The file is not an image of the announced type"""


async def start_upload(write: WriteSession, account_id: UUID, announced: UploadIn) -> Upload:
    upload = Upload(
        account_id=account_id,
        key=f"uploads/{uuid4()}",
        content_type=announced.content_type,
        size=announced.size,
    )
    write.add(upload)
    await write.flush()
    return upload


async def complete_upload(
    write: WriteSession, files: Files, account_id: UUID, upload_id: UUID
) -> Upload:
    """Doing it again changes nothing. Raises NoSuchUpload, NotSentYet, NotThatImage."""
    upload = await _own_upload(write, account_id, upload_id)
    if upload.completed_at is not None:
        return upload
    try:
        facts = await files.facts(upload.key)
    except FileMissing:
        raise NotSentYet from None
    if not facts.head.startswith(SIGNATURES[upload.content_type]):
        raise NotThatImage
    upload.sha256 = facts.sha256
    upload.completed_at = await write.scalar(select(func.now()))
    return upload


async def delete_upload(
    write: WriteSession, files: Files, account_id: UUID, upload_id: UUID
) -> None:
    """Raises NoSuchUpload."""
    upload = await _own_upload(write, account_id, upload_id)
    await write.delete(upload)
    await write.commit()
    # The row first: a file without a row is only waste, a row without its file is a broken image.
    await files.delete(upload.key)


async def sweep_given_up(write: WriteSession, files: Files, account_id: UUID) -> None:
    """Deletes what this account announced and never completed."""
    swept = await write.scalars(
        delete(Upload)
        .where(
            Upload.account_id == account_id,
            Upload.completed_at.is_(None),
            Upload.created_at < func.now() - GIVEN_UP_AFTER,
        )
        .returning(Upload.key)
    )
    keys = swept.all()
    await write.commit()
    for key in keys:
        await files.delete(key)


async def _own_upload(write: WriteSession, account_id: UUID, upload_id: UUID) -> Upload:
    own = select(Upload).where(Upload.id == upload_id, Upload.account_id == account_id)
    upload = await write.scalar(own.with_for_update())
    if upload is None:
        raise NoSuchUpload
    return upload
