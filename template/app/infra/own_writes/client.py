# Rung's file: advancing to another stage may change it.
"""The client of a request, and the WAL position that its reads must show.

A write's position is stored with the client's login session. The answer also carries the position,
signed, in a cookie and in a header. For a client that sends it back, the app needs no lookup of the
session. For any other client with a session, the app does one lookup by primary key.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import asyncpg
from starlette.types import ASGIApp, Receive, Scope, Send

from app.infra.answers import Header
from app.infra.failures import Unavailable
from app.infra.own_writes.log_position import MAIN, NOT_KNOWN, Position
from app.infra.own_writes.signed_positions import NEVER, NOTHING, Carried, SignedPositions, marker
from app.infra.session_rows import SessionStore
from app.infra.session_tokens import COOKIE, hash_of, token_of
from app.infra.signing import Signer

# After this time, every replica in rotation has replayed the position.
REMEMBERED = timedelta(seconds=60)

_SESSION_COOKIE = f"{COOKIE}=".encode()


@dataclass
class SessionPositions:
    """The places that store positions: the row of the session, and the session Redis."""

    connect: Callable[[], Awaitable[asyncpg.Connection]]
    in_rows: bool = True
    # Keeps the greatest position of these sessions in a database.
    note_beside_rows: Callable[[list[bytes], Position, str], Awaitable[None]] | None = None
    modules: list[str] = field(default_factory=list)  # whose own databases have replicas
    # Stores the positions in these databases with the sessions that a commit has started.
    note_started: Callable[["Client", asyncpg.Connection], Awaitable[None]] | None = None


class MinPosition:
    """The position that a client's reads of one database must show. Positions of two servers cannot
    be compared."""

    __slots__ = ("database", "has_written", "is_resolved", "position")

    def __init__(self, database: str, carried: Position | None, *, is_resolved: bool) -> None:
        self.database = database
        self.position = carried if carried != NEVER else None
        # False: the position is stored with the session, which was not read yet.
        self.is_resolved = is_resolved
        self.has_written = False

    def learn(self, position: Position | None) -> None:
        """Adds a position that is stored with the session."""
        self.is_resolved = True
        self.position = max(filter(None, (self.position, position)), default=None)

    def wrote(self, position: Position) -> None:
        self.has_written = self.is_resolved = True
        # This position also covers an earlier commit whose position is NOT_KNOWN.
        known = self.position if self.position != NOT_KNOWN else None
        self.position = max(position, known or position)


class Client:
    """The positions that the reads of one request, or of one task, must show.

    | the request brings           | its position is                                        |
    |------------------------------|--------------------------------------------------------|
    | no session                   | the one that it sends, or none                         |
    | a session, not all positions | stored with the session: the first read looks it up    |
    | a session, all its positions | the one that it sends: no lookup (`echoes`)            |
    | a session and the marker     | the one in its cookies. None: it wrote nothing lately  |
    """

    def __init__(
        self,
        *,
        affinity: str = "",
        token_hash: bytes | None = None,
        carried: Carried = NOTHING,
        sessions: SessionStore | None = None,  # find() also reads a session's positions
        positions: SessionPositions | None = None,
    ) -> None:
        # The same for all requests of one login session, or else of one address.
        self.affinity = affinity
        self.token_hash = token_hash
        self.carried = carried
        modules = positions.modules if positions else ()
        # No lookup is needed: there is no session, or the client sends all of its positions.
        self.echoes = token_hash is None or carried.covers(modules)
        self.started: list[bytes] = []
        self.positions = positions
        self._sessions = sessions
        self._stored: Mapping[str, Position] | None = None  # with the session, by database
        self._lookups: dict[object, asyncio.Future[Any]] = {}
        self.main = MinPosition(MAIN, carried.positions.get(MAIN), is_resolved=self.echoes)
        self._at = {MAIN: self.main}
        self.at_modules = [self.at(module) for module in modules]

    @property
    def noted_sessions(self) -> list[bytes]:
        """The sessions that must store a commit's position. A browser that keeps cookies sends
        the position back itself."""
        if self.token_hash and not self.carried.keeps_cookies:
            return [self.token_hash, *self.started]
        return self.started

    @property
    def needs_marker(self) -> bool:
        """With a marker in the answer, this request or the next one needs no lookup of the
        session. Never in the answer that starts one: a script may save that answer's cookies, and
        then no others."""
        has_session = self.token_hash is not None and not self.started
        is_due = self.main.has_written or not self.echoes
        return has_session and is_due and not self.carried.keeps_cookies

    def at(self, database: str) -> MinPosition:
        if database not in self._at:
            carried = self.carried.positions.get(database)
            at = self._at[database] = MinPosition(database, carried, is_resolved=self.echoes)
            if self._stored is not None:
                at.learn(self._stored.get(database))
        return self._at[database]

    async def resolve(self, at: MinPosition) -> Position | None:
        """The position that reads must show. NOT_KNOWN if the session cannot be read: the primary
        can still answer a read that needs no session."""
        if not at.is_resolved and self._sessions and self.token_hash:
            try:
                await self._sessions.find(self.token_hash)  # which calls learn()
            except Unavailable:
                return NOT_KNOWN
        at.is_resolved = True
        return at.position

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

    async def has_started(self, token_hash: bytes) -> None:
        """The commit that starts a session stores its position with that session. It may also
        delete the session before, so the positions in modules' databases are read first."""
        if self._sessions:  # outside of a request there are none
            self.started.append(token_hash)
            for one in self.at_modules:
                one.learn(await self.resolve(one))

    def learn(self, stored: Mapping[str, Position]) -> None:
        """Adds the positions that are stored with the session."""
        self._stored = stored
        for database, one in self._at.items():
            one.learn(stored.get(database))

    def learn_unknown(self) -> None:
        """The position of the session may not cover all that the client has written."""
        if not self.echoes:
            self.learn(dict.fromkeys(self._at, NOT_KNOWN))


_current: ContextVar[Client] = ContextVar("client")


def this_client() -> Client:
    """The client of the request, or outside of a request the client of the task."""
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
        at_modules = [one for one in client.at_modules if one.has_written]
        if client.main.has_written or at_modules:
            yield self.positions.header(_to_echo(client))
        # The client carries its session in a header, or has just started it without a cookie.
        if by_token or (client.started and not _has_session_cookie(answered)):
            return
        if client.main.has_written:
            yield from self._cookies(client, client.main)
        # A client with a marker sends all of its positions in cookies.
        if client.needs_marker and all(one.is_resolved for one in client.at_modules):
            at_modules = client.at_modules
            yield marker()
        for one in at_modules:
            yield from self._cookies(client, one)

    def _cookies(self, client: Client, at: MinPosition) -> Iterable[Header]:
        if at.position is None:
            return ()
        return self.positions.cookies(at.database, at.position, client.carried, self.remembered)


def _to_echo(client: Client) -> dict[str, Position]:
    """The positions that the client must send next time. An unknown one is looked up again."""
    known = {
        one.database: one.position or NEVER
        for one in (client.main, *client.at_modules)
        if one.is_resolved and (one.has_written or one.position != NOT_KNOWN)
    }
    if known.get(MAIN) == NEVER:
        del known[MAIN]
    carried = client.carried.positions.items()
    return known | {name: one for name, one in carried if name not in {MAIN, *known}}


def _has_session_cookie(answered: list[Header]) -> bool:
    return any(
        name == b"set-cookie" and value.startswith(_SESSION_COOKIE) for name, value in answered
    )
