# Rung's file: advancing to another stage may change it.
"""Failures that clients are told about, and the answer to errors that nobody foresaw."""

from collections.abc import Mapping
from typing import ClassVar

import asyncpg
import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = structlog.get_logger()


class Failure(Exception):
    """An answer to the client: a status, a title and headers. The message is for the log only."""

    status: ClassVar[int]
    title: ClassVar[str]
    headers: ClassVar[Mapping[str, str]] = {}


class Unavailable(Failure):
    """A server that this process depends on did not answer. The client may retry soon."""

    status = 503
    title = "Not available right now"
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "1"}


class NotConnected(Unavailable):
    """No connection could be opened."""


CONNECTION_LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InternalClientError,  # Postgres closed the connection as a statement began
)

# Also a wrong password, or a database that does not exist.
CANNOT_CONNECT = (*CONNECTION_LOST, asyncpg.PostgresError, asyncpg.InterfaceError)


class UnexpectedErrors:
    """Answers an unexpected error with the app's handler for Exception.

    Starlette calls that handler outside of all middleware, where its answer would get no request
    id and no security headers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_answered = False

        async def send_and_note(message: Message) -> None:
            nonlocal is_answered
            is_answered = True
            await send(message)

        try:
            await self.app(scope, receive, send_and_note)
        except Exception as error:
            if scope["type"] != "http" or is_answered:
                raise
            log.exception("unexpected error")
            handler = scope["app"].exception_handlers.get(Exception)
            request = Request(scope, receive)
            answer = await handler(request, error) if handler else JSONResponse(None, 500)
            await answer(scope, receive, send)
