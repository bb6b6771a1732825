# Rung's file: advancing to another stage may change it.
"""Limits for every request, and the rules for requests from pages of other sites."""

import re
from collections.abc import Collection
from typing import Annotated

from fastapi import FastAPI
from pydantic import AfterValidator, BeforeValidator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra import environment
from app.infra.answers import Answer, UnexpectedErrors
from app.infra.session_tokens import token_of

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

EXPOSE = "access-control-expose-headers"

# Headers that a page on another origin may read, beside the few that it always may. Routes of the
# team use the first three: the name of a download, a version, the next page.
EXPOSED_HEADERS = (
    *("content-disposition", "etag", "link"),
    *("location", "read-after", "retry-after", "x-request-id"),
)

# A route that takes more sets scope["body_limit"] before it reads: docs/guide/names.md.
MAX_BODY_BYTES = 64 * 1024


class CrossSiteWriteRefusal:
    """Refuses a write or a WebSocket of another site's page with the visitor's cookie.

    Browsers say where a request comes from: Sec-Fetch-Site, or Origin in older ones. Other clients
    send neither. A request with a token and no cookie passes, because a browser never adds a token
    automatically.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A WebSocket has no method. Its messages may write.
        is_safe = scope["type"] == "lifespan" or scope.get("method") in SAFE_METHODS
        if is_safe or self._is_allowed(scope):
            await self.app(scope, receive, send)
            return
        problem = {
            "type": "about:blank",
            "title": "Cross-site writes are refused",
            "status": 403,
            "detail": "The request came from a page of another site.",
        }
        refusal = JSONResponse(problem, 403, media_type="application/problem+json")
        await refusal(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        if origin in self.origins or _comes_from_this_site(headers, origin):
            return True
        token = token_of(scope)
        return token.in_header and not token.in_cookie


class BodyLimit:
    """Stops reading a body that is larger than its limit, and answers 413.

    Whatever the app answers is dropped: FastAPI, or a middleware of the team, turns the error of a
    read into a 400 or a 500.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received, is_refused = 0, False
        answer: Answer = scope["answer"]

        async def receive_up_to_limit() -> Message:
            nonlocal received, is_refused
            message = await receive()
            received += len(message.get("body", b""))
            if received > scope.get("body_limit", MAX_BODY_BYTES):
                if not answer.status:
                    is_refused = answer.is_dropped = True
                raise _too_large()
            return message

        try:
            await self.app(scope, receive_up_to_limit, send)
        except Exception:
            if not is_refused:
                raise
        if is_refused:
            answer.is_dropped = False
            raise _too_large()


class Cors(CORSMiddleware):
    """Exposes what a route names too, such as X-Total-Count. Starlette's own would replace it."""

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        if message["type"] == "http.response.start" and "origin" in request_headers:
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            own = headers.getlist(EXPOSE)
            headers[EXPOSE] = ", ".join([*EXPOSED_HEADERS, *own])
        await super().send(message, send, request_headers)


def _too_large() -> HTTPException:
    return HTTPException(413, "The request body is too large")


def _comes_from_this_site(headers: Headers, origin: str | None) -> bool:
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    host = headers.get("host")
    return origin is None or origin in {f"https://{host}", f"http://{host}"}


def _by_commas(given: object) -> object:
    return [part.strip() for part in given.split(",")] if isinstance(given, str) else given


def _origin(given: str) -> str:
    # Pages in a mobile app or a browser's extension have their own schemes: capacitor://localhost.
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://([a-z0-9_.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?", given):
        raise ValueError(f"{given!r} is not an origin: write it like https://app.example.com")
    return given


class CorsSettings(BaseSettings):
    """The origins whose pages may call this API, with their visitors' cookies or with tokens."""

    model_config = SettingsConfigDict(env_prefix="CORS_")

    origins: Annotated[
        list[Annotated[str, AfterValidator(_origin)]], NoDecode, BeforeValidator(_by_commas)
    ] = []


def install(app: FastAPI) -> None:
    origins = environment.read(CorsSettings).origins
    app.add_middleware(BodyLimit)
    app.add_middleware(CrossSiteWriteRefusal, origins=frozenset(origins))
    app.add_middleware(UnexpectedErrors)
    if origins:
        app.add_middleware(
            Cors,
            allow_origins=origins,
            allow_credentials=True,
            allow_methods=["*"],
            allow_headers=["*"],
            max_age=3600,
        )
