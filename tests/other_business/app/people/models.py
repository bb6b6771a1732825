from uuid import UUID

from sqlalchemy import ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class Person(Base):
    __tablename__ = "people"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]


class Follow(Base):
    __tablename__ = "follows"

    follower_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True)
    followed_id: Mapped[UUID] = mapped_column(ForeignKey("people.id"), primary_key=True, index=True)
