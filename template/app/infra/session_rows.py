# Rung's file: advancing to another stage may change it.
"""Login sessions as rows of Postgres."""

import re
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from typing import Any, Protocol, cast
from uuid import UUID

import structlog
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import INTERVAL, JSONB
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.sql import visitors

from app.infra.environment import Count, Duration
from app.infra.failures import Unavailable
from app.infra.queries import Form
from app.infra.reads import Query, Reader
from app.infra.tables import Base

log = structlog.get_logger()

# Updating seen_at at every request would turn each read into a write.
SEEN_PRECISION = timedelta(minutes=5)


class SessionSettings(BaseSettings):
    """Durations are ISO 8601: P14D."""

    model_config = SettingsConfigDict(env_prefix="SESSION_")

    idle: Duration = timedelta(days=14)
    absolute: Duration = timedelta(days=90)

    # The most sessions of one user. A login beyond that ends an old one. Sessions that were last
    # seen less than 5 minutes after their login end first, so a script that logs in for each call
    # ends its own. Among those, and among the others, the one seen longest ago ends first.
    most: Count = 500

    @cached_property
    def seen_precision(self) -> timedelta:
        """Much shorter than `idle`. Otherwise a session would end while somebody uses it."""
        return min(SEEN_PRECISION, self.idle / 10)


class LoginSession(Base):
    """The cookie holds 256 random bits. Only their hash is stored, so a stolen table gives access
    to no session."""

    __tablename__ = "login_sessions"

    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(index=True)
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    # WAL positions by database, so that later stages show a client its own writes.
    positions: Mapped[dict[str, str]] = mapped_column(JSONB, server_default="{}")


@dataclass(frozen=True, slots=True)
class Session:
    user_id: UUID
    seen_at: datetime
    expires_at: datetime


def _is_active(idle: Any) -> ColumnElement[bool]:
    return and_(LoginSession.expires_at > func.now(), LoginSession.seen_at > func.now() - idle)


SESSION_BY_TOKEN = Query(
    select(LoginSession.user_id, LoginSession.seen_at, LoginSession.expires_at).where(
        LoginSession.token_hash == bindparam("token_hash"),
        _is_active(bindparam("idle", type_=INTERVAL)),
    ),
    Session,
)


class WithRow[SessionT, RowT]:
    """One statement: a session, and the first row of a Query that takes its user_id alone."""

    def __init__(self, sessions: Query[SessionT], query: Query[RowT]) -> None:
        form = query.form({"user_id": ...})
        if form.required != {"user_id"}:
            raise TypeError(f"of_user takes a Query of user_id alone: {form.sql}")
        # By name, because SQLAlchemy would add a subquery to the FROM of each nested SELECT.
        of_user = visitors.replacement_traverse(form.statement, {}, _column_of_session)
        self._of_user = Form.compiled(cast("Select[Any]", of_user), query.row)
        self._of_session = sessions.fixed
        self._width = len(self._of_session.statement.selected_columns)
        before = len(self._of_user.positions)
        session = re.sub(r"\$(\d+)", lambda n: f"${before + int(n[1])}", self._of_session.sql)
        # Text, because SQLAlchemy would move a CTE out. `true` distinguishes NULLs from no row.
        self._sql = f"""
            SELECT * FROM ({session}) rung_session LEFT JOIN LATERAL
            (SELECT true, of_user.* FROM ({self._of_user.sql}) of_user LIMIT 1) of_user ON true
        """  # noqa: S608  # texts that SQLAlchemy compiled, without values

    async def first(self, read: Reader, **values: Any) -> tuple[SessionT, RowT | None] | None:
        arguments = self._of_user.arguments({}) + self._of_session.arguments(values)
        records = await read.fetch(self._sql, *arguments)
        if not records:
            return None
        [session] = self._of_session.rows_of([records[0][: self._width]])
        is_there, *row = records[0][self._width :]
        return session, self._of_user.rows_of([row])[0] if is_there else None


def _column_of_session(element: Any, **_: Any) -> Any:
    if isinstance(element, BindParameter) and element.key == "user_id":
        return literal_column("rung_session.user_id", element.type)
    return None


with_row = cache(WithRow)  # per copy: the same in all


class SessionStore(Protocol):
    """Sessions start and end in the caller's transaction. Each method raises Unavailable."""

    async def find(self, token_hash: bytes) -> Session | None: ...
    async def note_visit(self, token_hash: bytes, session: Session) -> None: ...
    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None: ...
    async def end(self, write: AsyncSession, token_hash: bytes) -> object: ...
    async def end_all(
        self, write: AsyncSession, user_id: UUID, *, besides: bytes | None = None
    ) -> object: ...
    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]: ...


class SessionRows:
    def __init__(
        self,
        reader: Callable[[], Reader],
        transaction: Callable[[], AbstractAsyncContextManager[AsyncSession]],
        settings: SessionSettings,
    ) -> None:
        self._reader = reader
        self._transaction = transaction
        self._settings = settings
        self._idle = settings.idle

    async def find(self, token_hash: bytes) -> Session | None:
        """None if the session does not exist or has ended. Raises Unavailable."""
        return await self._reader().first(SESSION_BY_TOKEN, token_hash=token_hash, idle=self._idle)

    async def find_with[RowT](
        self, token_hash: bytes, query: Query[RowT]
    ) -> tuple[Session, RowT | None] | None:
        both: WithRow[Session, RowT] = with_row(SESSION_BY_TOKEN, query)
        return await both.first(self._reader(), token_hash=token_hash, idle=self._idle)

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        # By this process' clock, which decides whether a visit is due. If Postgres' clock were
        # minutes behind, a visit would stay due, and each request would be a write.
        now = datetime.now(UTC)
        # Of requests that arrive together, only one updates seen_at.
        stale = (LoginSession.token_hash == token_hash) & (
            LoginSession.seen_at < now - self._settings.seen_precision
        )
        try:
            async with self._transaction() as write:
                await write.execute(update(LoginSession).where(stale).values(seen_at=now))
        except Unavailable as error:
            log.warning("a visit was not noted", reason=str(error))  # no reason to fail a read

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        expired = select(LoginSession.token_hash).where(LoginSession.expires_at < func.now())
        await _delete_unlocked(write, expired.limit(100))
        await self._delete_surplus(write, session.user_id)
        write.add(
            LoginSession(
                token_hash=token_hash,
                user_id=session.user_id,
                seen_at=session.seen_at,
                expires_at=session.expires_at,
            )
        )
        await write.flush()

    async def end(self, write: AsyncSession, token_hash: bytes) -> Sequence[bytes]:
        """Returns the hashes of the ended sessions: one, or none."""
        return await _delete(write, LoginSession.token_hash == token_hash)

    async def end_all(
        self, write: AsyncSession, user_id: UUID, *, besides: bytes | None = None
    ) -> Sequence[bytes]:
        ended = LoginSession.user_id == user_id
        if besides is not None:
            ended &= LoginSession.token_hash != besides
        return await _delete(write, ended)

    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]:
        """The user's active sessions by the hash of their token."""
        columns = LoginSession.token_hash, LoginSession.seen_at, LoginSession.expires_at
        active = select(*columns).where(LoginSession.user_id == user_id, _is_active(self._idle))
        return {
            token_hash: Session(user_id, seen_at, expires_at)
            for token_hash, seen_at, expires_at in await write.execute(active)
        }

    async def _delete_surplus(self, write: AsyncSession, user_id: UUID) -> None:
        used_again = LoginSession.expires_at - LoginSession.seen_at < self._settings.absolute
        surplus = (
            select(LoginSession.token_hash)
            .where(LoginSession.user_id == user_id)
            .order_by(_is_active(self._idle).desc(), used_again.desc(), LoginSession.seen_at.desc())
            .offset(self._settings.most - 1)
        )
        hashes = select(LoginSession.token_hash).where(LoginSession.token_hash.in_(surplus))
        await _delete_unlocked(write, hashes)


async def _delete_unlocked(write: AsyncSession, hashes: Select[bytes]) -> None:
    """Skips rows that another login deletes: two that wait for each other would be a deadlock."""
    unlocked = hashes.with_for_update(skip_locked=True)
    await write.execute(
        delete(LoginSession)
        .where(LoginSession.token_hash.in_(unlocked))
        .execution_options(synchronize_session=False)
    )


async def _delete(write: AsyncSession, which: ColumnElement[bool]) -> Sequence[bytes]:
    deleted = delete(LoginSession).where(which).returning(LoginSession.token_hash)
    return (await write.scalars(deleted)).all()
