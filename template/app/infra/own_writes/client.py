# Rung's file: advancing to another stage may change it.
"""The client of a request, and the WAL position that its reads must show.

A write's position is stored with the client's login session. The answer also carries the position,
signed, in a cookie and in a header. For a client that sends it back, the app needs no lookup of the
session. Any other client with a session costs one lookup by primary key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar, Protocol

import asyncpg
from starlette.types import ASGIApp, Receive, Scope, Send

from app.infra.answers import Header
from app.infra.failures import Unavailable
from app.infra.own_writes.log_position import NOT_KNOWN, Position
from app.infra.own_writes.signed_positions import (
    NOTHING,
    Carried,
    SignedPositions,
    marker,
)
from app.infra.session_tokens import COOKIE, hash_of, token_of
from app.infra.signing import Signer

# Every replica in rotation has replayed an older position.
REMEMBERED = timedelta(seconds=60)

_SESSION_COOKIE = f"{COOKIE}=".encode()


class PositionStore(Protocol):
    """Keeps the greatest position of each session, beside the row in Postgres."""

    async def note_position(self, token_hashes: list[bytes], position: Position) -> None: ...


class SessionFinder(Protocol):
    """The store of login sessions. Finding a session also reads its position."""

    async def find(self, token_hash: bytes) -> object: ...


@dataclass
class SessionPositions:
    """The places that store positions: the row of the session, and other stores."""

    connect: Callable[[], Awaitable[asyncpg.Connection]]
    in_rows: bool = True
    stores: list[PositionStore] = field(default_factory=list)


class Client:
    """The position that the reads of one request, or of one task, must show."""

    def __init__(
        self,
        *,
        affinity: str = "",
        token_hash: bytes | None = None,
        carried: Carried = NOTHING,
        sessions: SessionFinder | None = None,
        positions: SessionPositions | None = None,
    ) -> None:
        # The same for all requests of one login session, or else of one address.
        self.affinity = affinity
        self.token_hash = token_hash
        self.carried = carried
        self.min_position = carried.position
        # False: the position is stored with the session, which was not read yet.
        self.echoes = token_hash is None or carried.is_any
        self.is_resolved = self.echoes
        self.has_written = False
        self.started: list[bytes] = []
        self.positions = positions
        self._sessions = sessions
        self._lookups: dict[object, asyncio.Future[Any]] = {}

    @property
    def noted_sessions(self) -> list[bytes]:
        """The sessions that must store a commit's position. A browser that keeps cookies sends
        the position back itself."""
        if self.token_hash and not self.carried.keeps_cookies:
            return [self.token_hash, *self.started]
        return self.started

    @property
    def needs_marker(self) -> bool:
        """With a marker this request or the next one needs no lookup of the session."""
        has_session = self.token_hash is not None or self.started != []
        is_due = self.has_written or not self.echoes
        return has_session and is_due and not self.carried.keeps_cookies

    async def resolve(self) -> Position | None:
        """The position that reads must show: NOT_KNOWN when the session cannot be read, because
        the primary may answer a read that needs no session."""
        if not self.is_resolved and self._sessions and self.token_hash:
            try:
                await self._sessions.find(self.token_hash)
            except Unavailable:
                return NOT_KNOWN
        self.is_resolved = True
        return self.min_position

    async def find_once[T](
        self, token_hash: bytes, find: Callable[[bytes], Coroutine[Any, Any, T]]
    ) -> T:
        """All callers of one request share one lookup of its session."""
        if token_hash != self.token_hash:
            return await find(token_hash)
        key = (find, token_hash)
        if key not in self._lookups:
            self._lookups[key] = asyncio.create_task(find(token_hash))
        found: T = await asyncio.shield(self._lookups[key])
        return found

    def has_started(self, token_hash: bytes) -> None:
        """The commit that starts a session stores its position with that session."""
        if self._sessions:  # outside of a request there are none
            self.started.append(token_hash)

    def learn(self, position: Position | None) -> None:
        """Adds a position that is stored with the session."""
        self.is_resolved = True
        self.min_position = max(filter(None, (self.min_position, position)), default=None)

    def learn_unknown(self) -> None:
        """The position of the session may not cover all that the client has written."""
        if not self.echoes:
            self.learn(NOT_KNOWN)

    def wrote(self, position: Position) -> None:
        self.has_written = self.is_resolved = True
        # An earlier commit without a known position came before this one.
        known = self.min_position if self.min_position != NOT_KNOWN else None
        self.min_position = max(position, known or position)


_current: ContextVar[Client] = ContextVar("client")


def this_client() -> Client:
    """The request's, or outside of a request the task's."""
    try:
        return _current.get()
    except LookupError:
        client = Client()
        _current.set(client)
        return client


class OwnWrites:
    """Takes from a request the positions that its client has seen, and returns those it wrote."""

    # For as long as an older answer may be given, if that is longer.
    remembered: ClassVar[timedelta] = REMEMBERED

    def __init__(self, app: ASGIApp, signer: Signer) -> None:
        self.app = app
        self.positions = SignedPositions(signer)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        token, state = token_of(scope), scope["app"].state
        client = Client(
            affinity=token.text or (scope["client"][0] if scope.get("client") else ""),
            token_hash=hash_of(token.text) if token.text else None,
            carried=self.positions.of(scope, by_token=token.in_header),
            sessions=state.session_store,
            positions=state.positions,
        )
        scope["answer"].late.append(partial(self._added, client, token.in_header))
        outside = _current.set(client)
        try:
            await self.app(scope, receive, send)
        finally:
            _current.reset(outside)

    def _added(self, client: Client, by_token: bool, answered: list[Header]) -> Iterator[Header]:
        written = client.min_position if client.has_written else None
        if written:
            yield self.positions.header(written)
        # The client carries its session in a header, or has just started it without a cookie.
        if by_token or (client.started and not _has_session_cookie(answered)):
            return
        if written:
            yield from self.positions.cookies(written, client.carried, self.remembered)
        if client.needs_marker:
            yield marker()


def _has_session_cookie(answered: list[Header]) -> bool:
    return any(
        name == b"set-cookie" and value.startswith(_SESSION_COOKIE) for name, value in answered
    )
