from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class Article(Base):
    __tablename__ = "articles"
    __table_args__ = (Index("ix_articles_author_id_id", "author_id", "id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    author_id: Mapped[UUID]
    title: Mapped[str]
    written_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Comment(Base):
    __tablename__ = "comments"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    article_id: Mapped[UUID] = mapped_column(ForeignKey("articles.id"), index=True)
    author_id: Mapped[UUID]
    body: Mapped[str]
