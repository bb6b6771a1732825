from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class Upload(Base):
    """The row exists before its file and is deleted after it, so each file has a row. After a day
    the sweep removes the uploads that were never completed, and those that were deleted."""

    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_account_id_id", "account_id", "id"),
        Index(
            "ix_uploads_to_sweep",
            "created_at",
            postgresql_where=text("completed_at IS NULL OR deleted_at IS NOT NULL"),
        ),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    account_id: Mapped[UUID]
    key: Mapped[str]  # the name of the file in `Files`
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
    deleted_at: Mapped[datetime | None]
