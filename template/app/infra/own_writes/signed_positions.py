# Rung's file: advancing to another stage may change it.
"""The positions that a client carries: signed, in a cookie for browsers, in a header for others."""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from itertools import islice
from typing import NamedTuple

from starlette.types import Scope

from app.infra.answers import Header
from app.infra.own_writes.log_position import Position
from app.infra.signing import Signer

HEADER = b"read-after"

# A browser that sends this marker back keeps cookies. So if it sends no position, it has written
# nothing for a minute. The marker lives as long as browsers allow.
KEEPS_COOKIES = "__Host-keeps-cookies"
MARKER_LIFETIME = timedelta(days=400)

# A position without a name is that of the database "main". A module's own database has its name in
# front, in the header and in the cookie's name. A version that knows none of these ignores them.
_SIGNED = rb"([0-9a-f]{1,9})\.([0-9a-f]{1,16})\.([0-9a-f]{64})"
_IN_HEADER = re.compile(rb"\s*(?:([a-z0-9_]{1,63}):)?" + _SIGNED + rb"\s*")
_IN_COOKIE = re.compile(
    rb"(__Host-wrote-(?:([a-z0-9_]{1,63})-)?[0-9a-f]{1,16})=" + _SIGNED + rb"(?=;|$)"
)
_MARKER = re.compile(rf"(?:^|;)\s*{KEEPS_COOKIES}=1\s*(?:;|$)".encode())

# The app never leaves more: each answer to a write removes the cookies that came with the request.
MOST_COOKIES = 50

# In a header: the client has written nothing to this database. Without it, that is not known.
NEVER = Position(0, 0)


class Carried(NamedTuple):
    """The positions that a request carries."""

    header: Position | None = None
    cookies: dict[str, Position] = {}  # noqa: RUF012  # never changed
    keeps_cookies: bool = False
    of_modules: dict[str, Position] = {}  # noqa: RUF012  # by the name of the module's database
    module_cookies: dict[str, str] = {}  # noqa: RUF012  # the database of each cookie

    @property
    def position(self) -> Position | None:
        if not self.cookies:
            return self.header
        return max(filter(None, (self.header, *self.cookies.values())), default=None)

    @property
    def is_any(self) -> bool:
        """True if the client sends back what it was given, so its positions are complete."""
        return bool(self.header or self.cookies or self.keeps_cookies)

    def cookies_of(self, *database: str) -> list[str]:
        if not database:
            return list(self.cookies)
        return [cookie for cookie, of in self.module_cookies.items() if of in database]

    def covers(self, databases: Iterable[str]) -> bool:
        """Whether its positions are complete for "main" and for these."""
        return self.is_any and (self.keeps_cookies or self.of_modules.keys() >= set(databases))


NOTHING = Carried()


class SignedPositions:
    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def of(self, scope: Scope, *, by_token: bool) -> Carried:
        header, cookies, keeps_cookies = None, {}, False
        of_modules: dict[str, Position] = {}
        module_cookies: dict[str, str] = {}
        # A page that sends a token may come with cookies of an earlier login. Its answers set no
        # cookies, so the old ones prove nothing.
        for field, value in scope["headers"]:
            if field == HEADER:
                for part in value.split(b",", MOST_COOKIES)[:MOST_COOKIES]:
                    if found := _IN_HEADER.fullmatch(part):
                        name, *signed = found.groups()
                        position = self._verified(name, *signed)
                        if position and name is None:
                            header = max(position, header or position)
                        elif position:
                            _add(of_modules, name.decode(), position)
            elif field == b"cookie" and not by_token:
                keeps_cookies |= _MARKER.search(value) is not None
                for found in islice(_IN_COOKIE.finditer(value), MOST_COOKIES):
                    cookie, name, *signed = found.groups()
                    position = self._verified(name, *signed)
                    if position and name is None:
                        cookies[cookie.decode()] = position
                    elif position:
                        module_cookies[cookie.decode()] = name.decode()
                        _add(of_modules, name.decode(), position)
        if header or cookies or keeps_cookies or of_modules:
            return Carried(header, cookies, keeps_cookies, of_modules, module_cookies)
        return NOTHING

    def header(self, position: Position | None, of_modules: Mapping[str, Position] = {}) -> Header:
        parts = [self._signed(position)] if position else []
        parts += [f"{name}:{self._signed(one, name)}" for name, one in of_modules.items()]
        return HEADER, ", ".join(parts).encode()

    def cookies(
        self, position: Position, carried: Carried, lifetime: timedelta, *database: str
    ) -> Iterator[Header]:
        """Each write's cookie has its own name. With one name for all, two answers that overtake
        each other would leave a browser with the lesser position."""
        name = "-".join(("__Host-wrote", *database, f"{position.lsn:x}"))
        yield _set_cookie(name, self._signed(position, *database), lifetime)
        for lesser in carried.cookies_of(*database):
            if lesser != name:
                yield _set_cookie(lesser, "", timedelta())

    def _signed(self, position: Position, *database: str) -> str:
        signature = self._signer.sign("position", *database, *position)
        return f"{position.timeline:x}.{position.lsn:x}.{signature}"

    def _verified(
        self, database: bytes | None, timeline: bytes, lsn: bytes, signature: bytes
    ) -> Position | None:
        position = Position(int(timeline, 16), int(lsn, 16))
        named = () if database is None else (database.decode(),)
        is_ours = self._signer.is_valid(signature.decode(), "position", *named, *position)
        return position if is_ours else None


def _add(positions: dict[str, Position], database: str, position: Position) -> None:
    positions[database] = max(position, positions.get(database, position))


def marker() -> Header:
    return _set_cookie(KEEPS_COOKIES, "1", MARKER_LIFETIME)


def _set_cookie(name: str, value: str, lifetime: timedelta) -> Header:
    seconds = int(lifetime.total_seconds())
    attributes = f"Max-Age={seconds}; Path=/; Secure; HttpOnly; SameSite=lax"
    return b"set-cookie", f"{name}={value}; {attributes}".encode()
