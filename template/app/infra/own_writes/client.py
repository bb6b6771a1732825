# Rung's file: advancing to another stage may change it.
"""The client of a request, and the WAL position that its reads must show.

A write's position stands with the client's login session. Its answer also carries the position,
signed, in a cookie and in a header. A client that sends it back is served without a look at the
session; any other client with a session costs one lookup by primary key.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra.own_writes.log_position import NOT_KNOWN, Position
from app.infra.session_rows import SessionStore
from app.infra.session_tokens import hash_of, token_of
from app.infra.signing import Signer

# Every replica in rotation has replayed an older position.
REMEMBERED = timedelta(seconds=60)

HEADER = "read-after"

# Each write's cookie has its own name. With one name for all, two answers that overtake each other
# on their way to a browser would leave it with the lesser position.
_COOKIE = re.compile(r"(__Host-wrote-[0-9a-f]{1,16})=([0-9a-f.]{1,120})")

# Proves that a client keeps cookies, when its last write is so long ago that its position is gone.
MARKER = "__Host-keeps-cookies"

_TOKEN = re.compile(r"([0-9a-f]{1,9})\.([0-9a-f]{1,16})\.([0-9a-f]{64})")


class PositionStore(Protocol):
    """Keeps the greatest position of each session, beside the row in Postgres."""

    async def note_position(self, token_hash: bytes, position: Position) -> None: ...


@dataclass
class SessionPositions:
    """Where positions stand: in the row of the session, and in other stores."""

    in_rows: bool = True
    stores: list[PositionStore] = field(default_factory=list)


class Client:
    """What the reads of one request, or of one task, must show."""

    def __init__(
        self,
        *,
        affinity: str = "",
        min_position: Position | None = None,
        token_hash: bytes | None = None,
        echoes: bool = True,
        sessions: SessionStore | None = None,
        positions: SessionPositions | None = None,
    ) -> None:
        # The same for all requests of one login session, or else of one address.
        self.affinity = affinity
        self.min_position = min_position
        self.token_hash = token_hash
        # False: what the client must see stands with its session, which was not read yet.
        self.echoes = echoes
        self.is_resolved = echoes
        self.has_written = False
        self.positions = positions or SessionPositions()
        self._sessions = sessions
        self._lookups: dict[object, asyncio.Future[Any]] = {}

    async def resolve(self) -> Position | None:
        """The position that reads must show. Raises Unavailable when nothing can tell it."""
        if not self.is_resolved and self._sessions and self.token_hash:
            await self._sessions.find(self.token_hash)
        self.is_resolved = True
        return self.min_position

    async def find_once[T](
        self, token_hash: bytes, find: Callable[[bytes], Coroutine[Any, Any, T]]
    ) -> T:
        """One lookup of the request's session for all that ask."""
        if token_hash != self.token_hash:
            return await find(token_hash)
        key = (find, token_hash)
        if key not in self._lookups:
            self._lookups[key] = asyncio.create_task(find(token_hash))
        found: T = await asyncio.shield(self._lookups[key])
        return found

    def has_started(self, token_hash: bytes) -> None:
        """The position of the commit that starts a session stands with that session."""
        if self._sessions:  # else this is no request
            self.token_hash = token_hash

    def learn(self, position: Position | None) -> None:
        """A position that stands with the session."""
        self.is_resolved = True
        self.min_position = max(filter(None, (self.min_position, position)), default=None)

    def wrote(self, position: Position) -> None:
        self.has_written = True
        # A position that is not known after an earlier commit is less than this one.
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
        self.signer = signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cookies, read_after = _carried_by(scope)
        presented = self._presented(cookies, read_after) if cookies or read_after else {}
        token, state = token_of(scope), scope["app"].state
        client = Client(
            affinity=token or (scope["client"][0] if scope.get("client") else ""),
            min_position=max(presented.values(), default=None),
            token_hash=hash_of(token) if token else None,
            echoes=token is None or bool(presented) or MARKER in cookies,
            sessions=state.session_store,
            positions=state.positions,
        )

        def send_with_position(message: Message) -> Awaitable[None]:
            written = client.min_position if client.has_written else None
            if written and message["type"] == "http.response.start":
                is_new = client.token_hash is not None and MARKER not in cookies
                added = self._added(written, presented, is_new)
                message["headers"] = [*message["headers"], *added]
            return send(message)

        outside = _current.set(client)
        try:
            await self.app(scope, receive, send_with_position)
        finally:
            _current.reset(outside)

    def _presented(self, cookies: str, read_after: str) -> dict[str, Position]:
        """By the cookie's name, or the header's."""
        given = {HEADER: read_after} if read_after else {}
        if "__Host-wrote-" in cookies:
            given |= dict(_COOKIE.findall(cookies))
        positions = ((name, self._read(token)) for name, token in given.items())
        return {name: position for name, position in positions if position}

    def _added(
        self, position: Position, presented: Mapping[str, Any], is_new: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        token = self._token(position)
        yield HEADER.encode(), token.encode()
        name = f"__Host-wrote-{position.lsn:x}"
        yield _set_cookie(name, token, self.remembered)
        for lesser in presented.keys() - {HEADER, name}:
            yield _set_cookie(lesser, "", timedelta())
        if is_new:
            yield _set_cookie(MARKER, "1", timedelta(days=400))

    def _token(self, position: Position) -> str:
        return f"{position.timeline:x}.{position.lsn:x}.{self.signer.sign('position', *position)}"

    def _read(self, token: str) -> Position | None:
        found = _TOKEN.fullmatch(token)
        if found is None:
            return None
        position = Position(int(found[1], 16), int(found[2], 16))
        return position if self.signer.is_valid(found[3], "position", *position) else None


def _carried_by(scope: Scope) -> tuple[str, str]:
    """A request's cookies, and its Read-After."""
    cookies = read_after = ""
    for name, value in scope["headers"]:
        if name == b"cookie":
            cookies = value.decode("latin-1")
        elif name == b"read-after":
            read_after = value.decode("latin-1")
    return cookies, read_after


def _set_cookie(name: str, value: str, lifetime: timedelta) -> tuple[bytes, bytes]:
    seconds = int(lifetime.total_seconds())
    attributes = f"Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=lax"
    return b"set-cookie", f"{name}={value}; {attributes}".encode()
