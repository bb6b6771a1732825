# Rung's file: advancing to another stage may change it.
"""Who has written sees it: how far Postgres' log had come travels with the client.

A write's answer carries that position, signed, in a cookie for browsers and in a header for other
clients; the requests that bring it back read where it has been replayed.
"""

import re
from collections.abc import Awaitable, Iterable, Iterator
from contextvars import ContextVar
from datetime import timedelta
from functools import cached_property
from typing import ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra.own_writes.log_position import NOT_KNOWN, Position
from app.infra.session_tokens import COOKIE
from app.infra.signing import Signer

# A client that is told nothing more by then reads what every replica in rotation has long had.
REMEMBERED = timedelta(seconds=60)

HEADER = "read-after"

# Each write's cookie has a name of its own. With one name for all, two answers that overtake each
# other on their way to a browser would leave it with the lesser position.
_COOKIE = re.compile(r"(__Host-wrote-[0-9a-f]+)=([0-9a-f.]+)")
_SESSION = re.compile(rf"{COOKIE}=([^;]+)")


class Visit:
    """What one request, or one task, has to see: the greatest position that it knows of."""

    def __init__(self, cookies: str = "", address: str = "") -> None:
        self._cookies = cookies
        self._address = address
        self.must_see: Position | None = None
        self.has_written = False

    def wrote(self, position: Position) -> None:
        self.has_written = True
        # What could not be asked for after an earlier commit is before what this one has found.
        known = self.must_see if self.must_see != NOT_KNOWN else None
        self.must_see = max(position, known or position)

    @cached_property
    def client(self) -> str:
        """The same for all requests of one login session, or else of one address."""
        session = _SESSION.search(self._cookies)
        return session[1] if session else self._address


current_visit: ContextVar[Visit] = ContextVar("visit")


def this_visit() -> Visit:
    """The request's own; outside of one, that of the task."""
    try:
        return current_visit.get()
    except LookupError:
        visit = Visit()
        current_visit.set(visit)
        return visit


class ReadYourWrites:
    """Takes from a request the positions that its client has seen, and gives it those it wrote."""

    # For as long as anything older may be given as an answer, if that is longer.
    remembered: ClassVar[timedelta] = REMEMBERED

    def __init__(self, app: ASGIApp, signer: Signer) -> None:
        self.app = app
        self.signer = signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        cookies, token = _carried_by(scope["headers"])
        visit = Visit(cookies, scope["client"][0] if scope.get("client") else "")
        presented = self._presented(cookies, token) if cookies or token else {}
        visit.must_see = max(presented.values()) if presented else None

        def send_with_position(message: Message) -> Awaitable[None]:
            if visit.has_written and message["type"] == "http.response.start" and visit.must_see:
                added = self._added(visit.must_see, presented)
                message["headers"] = [*message["headers"], *added]
            return send(message)

        outside = current_visit.set(visit)
        try:
            await self.app(scope, receive, send_with_position)
        finally:
            current_visit.reset(outside)

    def _presented(self, cookies: str, token: str) -> dict[str, Position]:
        """By the cookie's name, or the header's."""
        given = {HEADER: token} if token else {}
        if "__Host-wrote-" in cookies:
            given |= dict(_COOKIE.findall(cookies))
        positions = ((name, self._read(token)) for name, token in given.items())
        return {name: position for name, position in positions if position}

    def _added(
        self, position: Position, presented: dict[str, Position]
    ) -> Iterator[tuple[bytes, bytes]]:
        token = self._token(position)
        yield HEADER.encode(), token.encode()
        name = f"__Host-wrote-{position.lsn:x}"
        yield _set_cookie(name, token, self.remembered)
        for lesser in presented.keys() - {HEADER, name}:
            yield _set_cookie(lesser, "", timedelta())

    def _token(self, position: Position) -> str:
        return f"{position.timeline:x}.{position.lsn:x}.{self.signer.sign('position', *position)}"

    def _read(self, token: str) -> Position | None:
        try:
            timeline, lsn, signature = token.split(".")
            position = Position(int(timeline, 16), int(lsn, 16))
        except ValueError:
            return None
        return position if self.signer.is_valid(signature, "position", *position) else None


def _carried_by(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, str]:
    """A request's cookies, and its Read-After."""
    cookies = token = ""
    for name, value in headers:
        if name == b"cookie":
            cookies = value.decode("latin-1")
        elif name == b"read-after":
            token = value.decode("latin-1")
    return cookies, token


def _set_cookie(name: str, value: str, lifetime: timedelta) -> tuple[bytes, bytes]:
    seconds = int(lifetime.total_seconds())
    attributes = f"Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=lax"
    return b"set-cookie", f"{name}={value}; {attributes}".encode()
