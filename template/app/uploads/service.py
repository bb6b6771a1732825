from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, update

from app.errors import Conflict, Forbidden, NotFound, Unprocessable
from app.infra.database import WriteSession
from app.infra.files import FileMissing, Files
from app.uploads.models import Upload
from app.uploads.schemas import UploadIn

# An upload link expires after minutes, so a file that is missing after a day will never arrive.
SWEPT_AFTER = timedelta(days=1)

# For each account. A deleted upload counts until the sweep: its link still accepts the file.
QUOTA_BYTES = 500 * 1024 * 1024

# A smaller file counts as this much, because start_upload reads all rows of its account.
LEAST_COUNTED_BYTES = 64 * 1024

SIGNATURES = {
    "image/gif": (b"GIF87a", b"GIF89a"),
    "image/jpeg": (b"\xff\xd8\xff",),
    "image/png": (b"\x89PNG\r\n\x1a\n",),
}


class NoSuchUpload(NotFound):
    """There is no such upload"""


class NoRoom(Forbidden):
    """Your uploads fill all the space that you have"""


class NotSentYet(Conflict):
    """The file has not arrived"""


class NotThatImage(Unprocessable):
    """The file is not an image of the announced type"""


async def start_upload(write: WriteSession, account_id: UUID, announced: UploadIn) -> Upload:
    """Raises NoRoom."""
    # One start_upload of an account at a time, so that each counts the earlier ones.
    await write.execute(select(func.pg_advisory_xact_lock(func.hashtext(str(account_id)))))
    counted = func.sum(func.greatest(Upload.size, LEAST_COUNTED_BYTES))
    taken = select(func.coalesce(counted, 0)).where(Upload.account_id == account_id)
    size = max(announced.size, LEAST_COUNTED_BYTES)
    if (await write.scalar(taken) or 0) + size > QUOTA_BYTES:
        raise NoRoom("Delete some. A deleted upload frees its space after a day.")
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
    """A second call changes nothing. Raises NoSuchUpload, NotSentYet, NotThatImage."""
    upload = await _own_upload(write, account_id, upload_id)
    # Reading a file is slow, so hold no connection during it.
    await write.commit()
    if upload.completed_at is None:
        try:
            facts = await files.facts(upload.key)
        except FileMissing:
            raise NotSentYet from None
        if facts.size != upload.size or not _is_image(upload.content_type, facts.head):
            # Otherwise each further try would read all of it again.
            await delete_upload(write, files, account_id, upload_id)
            raise NotThatImage
        await write.execute(
            update(Upload)
            .where(Upload.id == upload.id, Upload.completed_at.is_(None))
            .values(sha256=facts.sha256, completed_at=func.now())
        )
        upload = await _own_upload(write, account_id, upload_id)
    return upload


async def delete_upload(
    write: WriteSession, files: Files, account_id: UUID, upload_id: UUID
) -> None:
    """Raises NoSuchUpload. The row stays for a day, because its link still accepts the file."""
    upload = await _own_upload(write, account_id, upload_id)
    upload.deleted_at = await write.scalar(select(func.now()))
    await write.commit()
    await files.delete(upload.key)


async def sweep(write: WriteSession, files: Files) -> None:
    """Deletes some uploads that were abandoned or deleted at least a day ago."""
    expired = (
        select(Upload.id)
        .where(
            Upload.completed_at.is_(None) | Upload.deleted_at.is_not(None),
            Upload.created_at < func.now() - SWEPT_AFTER,
        )
        .limit(20)
        .with_for_update(skip_locked=True)
    )
    # An upload that is marked as deleted cannot be completed.
    swept = await write.execute(
        update(Upload)
        .where(Upload.id.in_(expired))
        .values(deleted_at=func.now())
        .returning(Upload.id, Upload.key)
    )
    keys = {row.id: row.key for row in swept}
    if not keys:
        return
    # Deleting files is slow, so hold no connection during it.
    await write.commit()
    for key in keys.values():
        # Delete the file before its row: a sweep finds rows without a file, but no files without a
        # row.
        await files.delete(key)
    await write.execute(delete(Upload).where(Upload.id.in_(keys)))


def _is_image(content_type: str, head: bytes) -> bool:
    """Checks only the first bytes. The rest may hold a script, a GPS position or 2^32 pixels."""
    if content_type == "image/webp":
        return head.startswith(b"RIFF") and head[8:12] == b"WEBP"
    return head.startswith(SIGNATURES[content_type])


async def _own_upload(write: WriteSession, account_id: UUID, upload_id: UUID) -> Upload:
    upload = await write.scalar(
        select(Upload)
        .where(
            Upload.id == upload_id,
            Upload.account_id == account_id,
            Upload.deleted_at.is_(None),
        )
        .execution_options(populate_existing=True)
    )
    if upload is None:
        raise NoSuchUpload
    return upload
