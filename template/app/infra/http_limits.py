# Rung's file: advancing to another stage may change it.
"""Limits that uvicorn does not have: large heads and trailers, slow heads, stalled clients."""

import asyncio
import secrets
from typing import Any, Literal

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.infra.answers import HEADERS

# Limits the request line and headers together, and the data between two parts of a chunked body
# (chunk extensions, trailers). A body that arrives at once may be longer.
MAX_HEAD_BYTES = 64 * 1024

# The same as in deploy/haproxy.cfg: the time to send the whole head, and the time between two parts
# of a body or of an answer.
HEAD_SECONDS = 10.0
SILENCE_SECONDS = 30.0

# For a request that never reaches the app.
HEADERS_OF_REFUSALS = b"".join(b"%b: %b\r\n" % header for header in HEADERS).decode()

# An IPv6 address with an embedded IPv4 address.
LONGEST_ADDRESS = 45


class LimitedHttp(HttpToolsProtocol):
    """A request that arrives in one piece, as nearly all do, costs no timer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading: Literal["nothing", "head", "body"] = "nothing"
        self._head_bytes = 0
        self._since_body = 0
        self._timer: asyncio.TimerHandle | None = None
        self._until_read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Uvicorn begins to wait after the first answer only.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        if self._until_read:
            self._until_read.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._since_body += len(data)
        super().data_received(data)
        if self._reading == "head":
            if not self._head_bytes:
                self._set_timer(HEAD_SECONDS)
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse("431 Request Header Fields Too Large")
        elif self._reading == "body":
            self._set_timer(SILENCE_SECONDS)
            if self._since_body > MAX_HEAD_BYTES:
                self._refuse("431 Request Header Fields Too Large")
        elif self._timer:
            self._set_timer(None)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reading = "head"
        self._head_bytes = 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._reading = "body"
        self._since_body = 0
        self.headers = self.headers.copy()  # takes the trailers, of which the app sees none

    def on_body(self, body: bytes) -> None:
        self._since_body = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._reading = "nothing"

    def send_400_response(self, msg: str) -> None:
        self._refuse("400 Bad Request")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._until_read = self.loop.call_later(SILENCE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._until_read:
            self._until_read.cancel()

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self._time_is_over) if seconds else None

    def _time_is_over(self) -> None:
        if self._reading == "head":
            self._refuse("408 Request Timeout")
        elif self.flow.read_paused:  # the app is slow, not the client
            self._set_timer(SILENCE_SECONDS)
        else:
            self.transport.close()

    def _refuse(self, status: str) -> None:
        if not self.transport.is_closing():
            headers = f"{HEADERS_OF_REFUSALS}x-request-id: {secrets.token_hex(16)}"
            end = "connection: close\r\ncontent-length: 0\r\n\r\n"
            self.transport.write(f"HTTP/1.1 {status}\r\n{headers}\r\n{end}".encode())
            self.transport.close()


class KnownAddress:
    """A trusted proxy may pass on any text as the client's address, and of any length."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and len(client[0]) > LONGEST_ADDRESS:
            scope["client"] = None
        await self.app(scope, receive, send)
