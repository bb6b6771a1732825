from datetime import datetime
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import bindparam, select

from app.infra.database import ReadSession
from app.infra.reads import Query
from app.uploads.models import Upload


class CompletedUpload(BaseModel):
    id: UUID
    key: str
    content_type: str
    size: int
    sha256: str
    completed_at: datetime


COMPLETED_UPLOAD = Query(
    select(
        Upload.id,
        Upload.key,
        Upload.content_type,
        Upload.size,
        Upload.sha256,
        Upload.completed_at,
    ).where(
        Upload.id == bindparam("upload_id"),
        Upload.account_id == bindparam("account_id"),
        Upload.completed_at.is_not(None),
        Upload.deleted_at.is_(None),
    ),
    CompletedUpload,
)


async def completed_upload(
    read: ReadSession, account_id: UUID, upload_id: UUID
) -> CompletedUpload | None:
    return await read.first(COMPLETED_UPLOAD, account_id=account_id, upload_id=upload_id)
