# Rung's file: advancing to another stage may change it.
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})

HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "cross-origin-opener-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "strict-transport-security": "max-age=31536000",
    "x-content-type-options": "nosniff",
}

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
        page = scope["path"] in PAGES

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    if not (page and name == "content-security-policy"):
                        headers.setdefault(name, value)
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


def _comes_from_this_site(headers: Headers) -> bool:
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def install(app: FastAPI) -> None:
    app.add_middleware(CrossSiteWriteRefusal)
    app.add_middleware(SecurityHeaders)
