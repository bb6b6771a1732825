# Rung's file: advancing to another stage may change it.
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

CONTENT_SECURITY_POLICY = (
    b"content-security-policy",
    b"default-src 'none'; frame-ancestors 'none'; sandbox",
)
FOR_PAGES = (b"content-security-policy", b"frame-ancestors 'none'")

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (b"cache-control", b"no-store"),
    CONTENT_SECURITY_POLICY,
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"strict-transport-security", b"max-age=31536000"),
    (b"x-content-type-options", b"nosniff"),
)
HEADERS_OF_PAGES = (FOR_PAGES, *(one for one in HEADERS if one != CONTENT_SECURITY_POLICY))

# Enough for any JSON; a route that takes more sets scope["body_limit"] before it reads.
MAX_BODY_BYTES = 64 * 1024

# The API's documentation is the one page for people: it loads its scripts from elsewhere.
PAGES = frozenset({"/docs", "/docs/oauth2-redirect", "/redoc"})


class SecurityHeaders:
    """Adds each header that the answer does not set itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        added = HEADERS_OF_PAGES if scope["path"] in PAGES else HEADERS

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = {name for name, _ in message["headers"]}
                missing = [header for header in added if header[0] not in own]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        await self.app(scope, receive, send_with_headers)


class CrossSiteWriteRefusal:
    """Refuses a write that another site's page makes with the visitor's cookie.

    Browsers say where a request comes from: Sec-Fetch-Site, or Origin in older ones. Clients that
    are not browsers send neither, and hold no cookie that another site could abuse.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] in SAFE_METHODS
            or _comes_from_this_site(Headers(scope=scope))
        ):
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


class BodyLimit:
    """Stops reading a body that is larger than anybody needs."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        received = 0

        async def receive_up_to_limit() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > scope.get("body_limit", MAX_BODY_BYTES):
                raise HTTPException(413, "The request body is too large")
            return message

        await self.app(scope, receive_up_to_limit if scope["type"] == "http" else receive, send)


def _comes_from_this_site(headers: Headers) -> bool:
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def install(app: FastAPI) -> None:
    app.add_middleware(BodyLimit)
    app.add_middleware(CrossSiteWriteRefusal)
    app.add_middleware(SecurityHeaders)
