# Rung's file: advancing to another stage may change it.
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, ClassVar
from uuid import UUID

import structlog
from fastapi import Depends, FastAPI, Request, Response
from fastapi.security import APIKeyCookie
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import INTERVAL
from sqlalchemy.orm import Mapped, mapped_column

from app.infra import environment
from app.infra.database import Base, ReadSession, WriteSession, database_of
from app.infra.failures import Failure, Unavailable
from app.infra.reads import Query

log = structlog.get_logger()

# The __Host- prefix makes browsers refuse the cookie from a subdomain or over plain HTTP
# (localhost counts as secure), so nobody can plant one.
COOKIE = "__Host-session"

# Writing "seen" at every request would turn each read into a write.
SEEN_PRECISION = timedelta(minutes=5)


class SessionSettings(BaseSettings):
    """Durations are ISO 8601 (P14D) or seconds."""

    model_config = SettingsConfigDict(env_prefix="SESSION_")

    idle: timedelta = timedelta(days=14)
    absolute: timedelta = timedelta(days=90)


class LoginSession(Base):
    """The cookie holds 256 random bits; only their hash is stored, so a stolen table opens no
    session."""

    __tablename__ = "login_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(index=True)
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)


class LoginNeeded(Failure):
    """No session, or one that has ended."""

    status = 401
    title = "Log in first"
    headers: ClassVar[Mapping[str, str]] = {"WWW-Authenticate": 'Cookie realm="session"'}


@dataclass(frozen=True, slots=True)
class User:
    id: UUID


@dataclass(frozen=True, slots=True)
class _Seen:
    user_id: UUID
    seen_at: datetime


SESSION_BY_TOKEN = Query(
    select(LoginSession.user_id, LoginSession.seen_at).where(
        LoginSession.token_hash == bindparam("token_hash"),
        LoginSession.expires_at > func.now(),
        LoginSession.seen_at > func.now() - bindparam("idle", type_=INTERVAL),
    ),
    _Seen,
)

SessionCookie = Annotated[
    str | None, Depends(APIKeyCookie(name=COOKIE, scheme_name="session", auto_error=False))
]


async def current_user(request: Request, read: ReadSession, token: SessionCookie) -> User:
    if token is None:
        raise LoginNeeded
    token_hash = _hash(token)
    settings: SessionSettings = request.app.state.session_settings
    session = await read.first(SESSION_BY_TOKEN, token_hash=token_hash, idle=settings.idle)
    if session is None:
        raise LoginNeeded
    if datetime.now(UTC) - session.seen_at > SEEN_PRECISION:
        await _remember_seen(request, token_hash)
    return User(session.user_id)


CurrentUser = Annotated[User, Depends(current_user)]


class LoginSessions:
    """Starts and ends sessions in the request's own transaction, and sets its cookie."""

    def __init__(self, request: Request, response: Response, write: WriteSession) -> None:
        self._settings: SessionSettings = request.app.state.session_settings
        self._response = response
        self._write = write
        self._token = request.cookies.get(COOKIE)

    async def start(self, user_id: UUID) -> None:
        """Always a new id: one that was planted before the login is worth nothing after it."""
        await self._delete_presented()
        await self._delete_some_expired()
        token = secrets.token_urlsafe(32)
        lifetime = self._settings.absolute
        self._write.add(
            LoginSession(
                token_hash=_hash(token), user_id=user_id, expires_at=datetime.now(UTC) + lifetime
            )
        )
        await self._write.flush()
        self._response.set_cookie(
            COOKIE,
            token,
            max_age=int(lifetime.total_seconds()),
            secure=True,
            httponly=True,
            samesite="lax",
        )

    async def end(self) -> None:
        await self._delete_presented()
        self._response.delete_cookie(COOKIE, secure=True, httponly=True, samesite="lax")

    async def end_all(self, user_id: UUID) -> None:
        """On every device; follow it with start() to keep the caller logged in."""
        await self._write.execute(delete(LoginSession).where(LoginSession.user_id == user_id))

    async def _delete_presented(self) -> None:
        if self._token is not None:
            presented = LoginSession.token_hash == _hash(self._token)
            await self._write.execute(delete(LoginSession).where(presented))

    async def _delete_some_expired(self) -> None:
        expired = (
            select(LoginSession.token_hash)
            .where(LoginSession.expires_at < func.now())
            .limit(100)
            .with_for_update(skip_locked=True)
        )
        await self._write.execute(
            delete(LoginSession)
            .where(LoginSession.token_hash.in_(expired))
            .execution_options(synchronize_session=False)
        )


Sessions = Annotated[LoginSessions, Depends()]


async def _remember_seen(request: Request, token_hash: bytes) -> None:
    # Requests that arrive together need not queue for the same note.
    stale = (LoginSession.token_hash == token_hash) & (
        LoginSession.seen_at < func.now() - SEEN_PRECISION
    )
    try:
        async with database_of(request).transaction() as write:
            await write.execute(update(LoginSession).where(stale).values(seen_at=func.now()))
    except Unavailable as error:
        log.warning("a visit was not noted", reason=str(error))  # no reason to fail a read


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def install(app: FastAPI) -> None:
    app.state.session_settings = environment.read(SessionSettings)
