# Rung's file: advancing to another stage may change it.
"""The token of a login session: where a request carries it, and the hash that is stored."""

import hashlib
import re
from typing import NamedTuple

from starlette.types import Scope

# The __Host- prefix makes browsers refuse the cookie from a subdomain or over plain HTTP, so no
# other site can plant one. Localhost counts as secure, but not for Safari.
COOKIE = "__Host-session"

# The app never creates a longer token. Java's CookieManager sends each cookie in quotes.
_CHARACTERS = r"[!-~]{1,200}"
_COOKIE = re.compile(rb"(?:^|;)\s*" + COOKIE.encode() + rb"=\"?([^;\s\"]{1,200})\"?\s*(?:;|$)")

# Where a client without cookies carries its token: the header, and the scheme before the token.
_carriers: dict[bytes, list[re.Pattern[bytes]]] = {}
# The schemes that a 401 names. A cookie has none.
CHALLENGE = {"WWW-Authenticate": ""}


def accept(header: str, scheme: str = "") -> None:
    """Let clients carry the token in another header, or after another scheme.

    One line in the team's app/main.py: accept("Authorization", "Token") or accept("X-Api-Key").
    """
    prefix = rf"{re.escape(scheme)}\s+" if scheme else ""
    pattern = re.compile(rf"\s*{prefix}({_CHARACTERS})\s*".encode(), re.IGNORECASE)
    _carriers.setdefault(header.lower().encode(), []).append(pattern)  # per copy: the same in all
    if scheme:
        known = CHALLENGE["WWW-Authenticate"]
        both = f"{known}, {scheme}" if known else scheme
        CHALLENGE["WWW-Authenticate"] = both  # per copy: the same in all


accept("Authorization", "Bearer")


class CarriedToken(NamedTuple):
    text: str | None
    in_header: bool = False
    in_cookie: bool = False


NO_TOKEN = CarriedToken(None)


def token_of(scope: Scope) -> CarriedToken:
    """The token that a request carries. A header takes precedence over the cookie, because browsers
    send cookies automatically."""
    in_header = in_cookie = None
    for name, value in scope["headers"]:
        if name == b"cookie":
            in_cookie = in_cookie or _COOKIE.search(value)
        elif in_header is None and name in _carriers:
            matches = (pattern.fullmatch(value) for pattern in _carriers[name])
            in_header = next(filter(None, matches), None)
    found = in_header or in_cookie
    if found is None:
        return NO_TOKEN
    text = found[1].decode("latin-1")
    return CarriedToken(text, in_header is not None, in_cookie is not None)


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
