# Rung's file: advancing to another stage may change it.
"""The positions that a client carries: signed, in a cookie for browsers, in a header for others."""

import re
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from starlette.types import Scope

from app.infra.answers import Header
from app.infra.own_writes.log_position import Position
from app.infra.signing import Signer

HEADER = b"read-after"

# A browser that brings it back keeps cookies, so a missing position means that it has not written
# for a minute. It lives as long as browsers allow.
KEEPS_COOKIES = "__Host-keeps-cookies"
MARKER_LIFETIME = timedelta(days=400)

# Positions of the database "main". One of another database would be name:timeline.lsn.signature;
# this version ignores it.
_SIGNED = rb"([0-9a-f]{1,9})\.([0-9a-f]{1,16})\.([0-9a-f]{64})"
_IN_HEADER = re.compile(rb"\s*" + _SIGNED + rb"\s*")
_IN_COOKIE = re.compile(rb"(__Host-wrote-[0-9a-f]{1,16})=" + _SIGNED + rb"(?=;|$)")
_MARKER = re.compile(rf"(?:^|;)\s*{KEEPS_COOKIES}=1\s*(?:;|$)".encode())

# The app never leaves more: each answer to a write removes the cookies that came with the request.
MOST_COOKIES = 50


class Carried(NamedTuple):
    """The positions that a request carries."""

    header: Position | None = None
    cookies: dict[str, Position] = {}  # noqa: RUF012  # never changed
    keeps_cookies: bool = False

    @property
    def position(self) -> Position | None:
        if not self.cookies:
            return self.header
        return max(filter(None, (self.header, *self.cookies.values())), default=None)

    @property
    def is_any(self) -> bool:
        """True if the client sends back what it was given, so its positions are complete."""
        return bool(self.header or self.cookies or self.keeps_cookies)


NOTHING = Carried()


class SignedPositions:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def of(self, scope: Scope, *, by_token: bool) -> Carried:
        header, cookies, keeps_cookies = None, {}, False
        # A page that sends a token may come with cookies of an earlier login. Its answers set no
        # cookies, so the old ones prove nothing.
        for name, value in scope["headers"]:
            if name == HEADER and (found := _IN_HEADER.fullmatch(value)):
                header = self._verified(*found.groups())
            elif name == b"cookie" and not by_token:
                keeps_cookies |= _MARKER.search(value) is not None
                for found in islice(_IN_COOKIE.finditer(value), MOST_COOKIES):
                    cookie, *signed = found.groups()
                    if position := self._verified(*signed):
                        cookies[cookie.decode()] = position
        if header or cookies or keeps_cookies:
            return Carried(header, cookies, keeps_cookies)
        return NOTHING

    def header(self, position: Position) -> Header:
        return HEADER, self._signed(position).encode()

    def cookies(
        self, position: Position, carried: Carried, lifetime: timedelta
    ) -> Iterator[Header]:
        """Each write's cookie has its own name. With one name for all, two answers that overtake
        each other would leave a browser with the lesser position."""
        name = f"__Host-wrote-{position.lsn:x}"
        yield _set_cookie(name, self._signed(position), lifetime)
        for lesser in carried.cookies.keys() - {name}:
            yield _set_cookie(lesser, "", timedelta())

    def _signed(self, position: Position) -> str:
        return f"{position.timeline:x}.{position.lsn:x}.{self._signer.sign('position', *position)}"

    def _verified(self, timeline: bytes, lsn: bytes, signature: bytes) -> Position | None:
        position = Position(int(timeline, 16), int(lsn, 16))
        is_ours = self._signer.is_valid(signature.decode(), "position", *position)
        return position if is_ours else None


def marker() -> Header:
    return _set_cookie(KEEPS_COOKIES, "1", MARKER_LIFETIME)


def _set_cookie(name: str, value: str, lifetime: timedelta) -> Header:
    seconds = int(lifetime.total_seconds())
    attributes = f"Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=lax"
    return b"set-cookie", f"{name}={value}; {attributes}".encode()
