from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.database import Base


class Upload(Base):
    """The row is made before the file arrives and completed after: a completed row always has
    its file, and a file without one is swept away with its row."""

    __tablename__ = "uploads"
    __table_args__ = (Index("ix_uploads_account_id_id", "account_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    account_id: Mapped[UUID]
    key: Mapped[str]  # where its bytes are in `files`
    content_type: Mapped[str]
    size: Mapped[int]
    sha256: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    completed_at: Mapped[datetime | None]
