from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Text, func
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class Account(Base):
    __tablename__ = "accounts"

    # Version 7: ids grow with time, so new rows share index pages and pages sort by id.
    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    email: Mapped[str] = mapped_column(unique=True)  # lower case, see schemas.Email
    password_hash: Mapped[str]
    is_staff: Mapped[bool] = mapped_column(server_default="false")
    # Addresses that it has logged in from. Guesses from elsewhere do not lock it out there.
    known_addresses: Mapped[list[str]] = mapped_column(ARRAY(Text), server_default="{}")


class LoginAttempts(Base):
    """The number of recent guesses: at one account, from one address, or both."""

    __tablename__ = "login_attempts"

    origin: Mapped[str] = mapped_column(primary_key=True)
    count: Mapped[int] = mapped_column(server_default="1")
    since: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)
