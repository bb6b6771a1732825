# Rung's file: advancing to another stage may change it.
"""The positions that a client carries: signed, in a cookie for browsers, in a header for others."""

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import NamedTuple

from starlette.types import Scope

from app.infra.answers import Header
from app.infra.own_writes.log_position import MAIN, Position
from app.infra.signing import Signer

HEADER = b"read-after"

# A client that sends this marker back saves the cookies of each answer. So if it sends no position,
# it has written nothing for a minute. The marker lives as long as browsers allow.
KEEPS_COOKIES = "__Host-keeps-cookies"
MARKER_LIFETIME = timedelta(days=400)

# A position without a name is that of the common database. A module's own database has its name in
# front, in the header and in the cookie's name. A version that knows none of these ignores them.
_SIGNED = rb"([0-9a-f]{1,9})\.([0-9a-f]{1,16})\.([0-9a-f]{64})"
_IN_HEADER = re.compile(rb"\s*(?:([a-z0-9_]{1,63}):)?" + _SIGNED + rb"\s*")
_IN_COOKIE = re.compile(
    rb'(__Host-wrote-(?:([a-z0-9_]{1,63})-)?[0-9a-f]{1,16})="?' + _SIGNED + rb'"?(?=;|$)'
)
_MARKER = re.compile(rf'(?:^|;)\s*{KEEPS_COOKIES}="?1"?\s*(?:;|$)'.encode())

# Each answer to a write removes the cookies that came with the request, so a browser has more only
# after it wrote many times at once. It sends the oldest first.
MOST_COOKIES = 50

# In a header: the client has written nothing to this database. Without it, that is not known.
NEVER = Position(0, 0)


class Carried(NamedTuple):
    """The positions that a request carries, by database."""

    positions: dict[str, Position] = {}  # noqa: RUF012  # never changed
    cookies: dict[str, str] = {}  # noqa: RUF012  # the database of each cookie
    keeps_cookies: bool = False

    def covers(self, modules: Iterable[str]) -> bool:
        """Whether the client sends back all positions of the common database and of these. Without
        the marker, its cookies may be those of its login."""
        in_header = self.positions.keys() - self.cookies.values()
        return self.keeps_cookies or in_header >= {MAIN, *modules}


NOTHING = Carried()


class SignedPositions:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def of(self, scope: Scope, *, by_token: bool) -> Carried:
        positions: dict[str, Position] = {}
        cookies: dict[str, str] = {}
        keeps_cookies = False
        # A page that sends a token may come with cookies of an earlier login. Its answers set no
        # cookies, so the old ones prove nothing.
        for field, value in scope["headers"]:
            if field == HEADER:
                for part in value.split(b",", MOST_COOKIES)[:MOST_COOKIES]:
                    if found := _IN_HEADER.fullmatch(part):
                        self._add(positions, *found.groups())
            elif field == b"cookie" and not by_token:
                keeps_cookies |= _MARKER.search(value) is not None
                for found in deque(_IN_COOKIE.finditer(value), MOST_COOKIES):
                    cookie, *signed = found.groups()
                    if database := self._add(positions, *signed):
                        cookies[cookie.decode()] = database
        return Carried(positions, cookies, keeps_cookies) if positions or keeps_cookies else NOTHING

    def header(self, positions: Mapping[str, Position]) -> Header:
        parts = [
            ":".join((*_named(database), self._signed(position, database)))
            for database, position in positions.items()
        ]
        return HEADER, ", ".join(parts).encode()

    def cookies(
        self, database: str, position: Position, carried: Carried, lifetime: timedelta
    ) -> Iterator[Header]:
        """Each write's cookie has its own name. With one name for all, two answers that overtake
        each other would leave a browser with the lesser position."""
        name = "-".join(("__Host-wrote", *_named(database), f"{position.lsn:x}"))
        yield _set_cookie(name, self._signed(position, database), lifetime)
        for lesser, of in carried.cookies.items():
            if of == database and lesser != name:
                yield _set_cookie(lesser, "", timedelta())

    def _signed(self, position: Position, database: str) -> str:
        signature = self._signer.sign("position", *_named(database), *position)
        return f"{position.timeline:x}.{position.lsn:x}.{signature}"

    def _add(
        self, positions: dict[str, Position], module: bytes | None, *signed: bytes
    ) -> str | None:
        """Keeps the greatest position of each database. None if we did not sign this one."""
        timeline, lsn, signature = signed
        position = Position(int(timeline, 16), int(lsn, 16))
        named = () if module is None else (module.decode(),)
        if not self._signer.is_valid(signature.decode(), "position", *named, *position):
            return None
        database = named[0] if named else MAIN
        positions[database] = max(position, positions.get(database, position))
        return database


def _named(database: str) -> tuple[str, ...]:
    return () if database == MAIN else (database,)


def marker() -> Header:
    return _set_cookie(KEEPS_COOKIES, "1", MARKER_LIFETIME)


def _set_cookie(name: str, value: str, lifetime: timedelta) -> Header:
    seconds = int(lifetime.total_seconds())
    attributes = f"Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=lax"
    return b"set-cookie", f"{name}={value}; {attributes}".encode()
