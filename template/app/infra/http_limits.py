# Rung's file: advancing to another stage may change it.
"""Limits that uvicorn does not have: large or ambiguous heads, slow clients, refusals in a row."""

import asyncio
import json
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable
from math import inf
from typing import Any, Literal

from httptools import HttpRequestParser
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import _TrustedHosts
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.infra.answers import HEADERS, nothing
from app.infra.joined_answers import JoinedAnswer

# Limits the request line and headers together, and the data between two parts of a chunked body
# (chunk extensions, trailers). A body that arrives at once may be longer.
MAX_HEAD_BYTES = 64 * 1024

# The most headers, and the most headers and trailers together. Checked after each part of the data,
# because 43,000 short headers at once took 15 ms and blocked all other requests.
MAX_FIELDS = 200
PART_BYTES = 8 * 1024

# FastAPI parses each parameter of a query, and 8,000 took 36 ms.
MAX_PARAMETERS = 1000

# Chunks of one byte take 5 ms for each 256 KiB, and the event loop reads 8 MiB of them in a row.
# After a part with more chunks than this, the connection rests for REST_SECONDS.
MANY_CHUNKS = 200
REST_SECONDS = 0.01

# Requests that a client sends before the answer to its first. Browsers send none.
MAX_PIPELINED = 50

# A second field of the same name could mean something else to a proxy, or to code that reads one.
SINGLE_FIELDS = frozenset(
    {
        *(b"authorization", b"content-type", b"host", b"idempotency-key", b"if-match"),
        *(b"if-unmodified-since", b"origin", b"sec-fetch-site"),
    }
)

# The same as in deploy/haproxy.cfg: the time to send the whole head, and the time between two parts
# of a body or of an answer.
HEAD_SECONDS = 10.0
SILENCE_SECONDS = 30.0

# The largest message of a WebSocket. With uvicorn's 16 MiB, 40 clients without a login took 700 MB.
MOST_MESSAGE_BYTES = 1024 * 1024

# While an answer waits for its client, the client must read this much in SILENCE_SECONDS.
LEAST_READ_BYTES = 64 * 1024

# After its answer, a client may send the rest of its body for this long. Until then, the request
# takes one of the places that HAProxy has for a copy.
REST_OF_BODY_SECONDS = 2.0

# HAProxy sends at most 200 requests at once to a copy (maxconn). Delayed refusals may take 150.
REFUSAL_DELAY_SECONDS = 0.5
MOST_DELAYED = 150

# For a request that never reaches the app.
HEADERS_OF_REFUSALS = b"".join(b"%b: %b\r\n" % header for header in HEADERS).decode()

# An IPv6 address with an embedded IPv4 address.
LONGEST_ADDRESS = 45


class Refused(Exception):
    """Ends the parser's work, because the request is refused. Its text tells the client why."""


class ReadInTime(asyncio.Protocol):
    """Closes the connection of a client that reads too slowly or not at all."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _until_read: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # By default asyncio calls pause_writing only when more than 64 KiB wait. Less could wait
        # for ever, because close() lets the client read it first.
        self.transport.set_write_buffer_limits(high=0)
        if self.transport.get_write_buffer_size():  # it was an HTTP connection before
            self.pause_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._until_read:
            self._until_read.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._look_again()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._until_read:
            self._until_read.cancel()

    def _look_again(self, unread_before: float = inf) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread and unread_before - unread < LEAST_READ_BYTES:
            self.transport.abort()
        elif unread:
            self._until_read = self.loop.call_later(SILENCE_SECONDS, self._look_again, unread)


class ReadInParts(asyncio.Protocol):
    """Lets others have a turn while a client sends many small chunks or frames."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _part_bytes = PART_BYTES
    _many_chunks = MANY_CHUNKS
    _chunks_in_part = 0
    _unread = b""
    _is_resting = False

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if not self._is_resting:
            self._read()

    def _read(self) -> None:
        data, self._unread = self._unread, b""
        for start in range(0, len(data), self._part_bytes):
            if self._is_resting:
                self._unread = data[start:]
                return
            if self.transport.is_closing():
                return
            self._chunks_in_part = 0
            self._part_received(data[start : start + self._part_bytes])
            if self._chunks_in_part > self._many_chunks and not self.transport.is_closing():
                self._is_resting = True
                self.transport.pause_reading()
                self.loop.call_later(REST_SECONDS, self._read_on)

    def _read_on(self) -> None:
        self._is_resting = False
        if not self.transport.is_closing():
            if not self._app_pauses():
                self.transport.resume_reading()
            self._read()

    def _part_received(self, data: bytes) -> None:
        super().data_received(data)

    def _app_pauses(self) -> bool:
        raise NotImplementedError


class LimitedHttp(ReadInTime, ReadInParts, HttpToolsProtocol):
    """A request that arrives in one piece, as nearly all do, costs no timer."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading: Literal["nothing", "head", "body", "refused"] = "nothing"
        self._overhead_bytes = 0  # bytes of the head, or since the last part of the body
        self._body: list[bytes] = []
        self._part = b""  # the request that is being read
        self._offers_upgrade = False
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # Uvicorn itself starts this timer only after the first answer.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        self._set_timer(None)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # whether the connection stays open
        """A client may end its own direction after a whole request, and still read the answer.
        After half a request, the connection is closed."""
        if not self._owes_answers():
            return False
        self.cycle.keep_alive = False
        # The app has this long to answer. Most such clients are gone, and the app learns of that
        # only when the connection is closed.
        self._set_timer(SILENCE_SECONDS)
        return True

    def _part_received(self, data: bytes) -> None:
        if self._reading == "refused":
            return
        self._parse(data)
        self._pass_on_body()
        if self._reading in ("nothing", "refused"):
            if self._timer:
                self._set_timer(None)
            return
        if self._reading == "head" and not self._overhead_bytes:
            self._set_timer(HEAD_SECONDS)
        elif self._reading == "body" and not self.cycle.response_complete:
            self._set_timer(SILENCE_SECONDS)
        self._overhead_bytes += len(data)
        if self._overhead_bytes > MAX_HEAD_BYTES or len(self.headers) > MAX_FIELDS:
            self._refuse("431 Request Header Fields Too Large")

    def _parse(self, data: bytes) -> None:
        self._part = data
        super()._part_received(data)

    def _app_pauses(self) -> bool:
        return bool(self.flow.read_paused)

    def on_message_begin(self) -> None:
        if len(self.pipeline) == MAX_PIPELINED:
            self.transport.close()
            raise Refused
        super().on_message_begin()
        self._reading = "head"
        self._overhead_bytes = 0

    def on_headers_complete(self) -> None:
        fields = dict(self.headers)
        if len(fields) < len(self.headers):
            names = Counter(name for name, _ in self.headers)
            if twice := [name.decode() for name in SINGLE_FIELDS if names[name] > 1]:
                raise Refused(f"Send this header once: {min(twice)}")
        if len(self.headers) > MAX_FIELDS or self.url.count(b"&") > MAX_PARAMETERS:
            self._refuse("431 Request Header Fields Too Large")
            raise Refused
        if b"host" not in fields and self.parser.get_http_version() == "1.1":
            raise Refused("Send the header Host.")
        if self.parser.get_method() == b"CONNECT":
            raise Refused("This server is no proxy.")
        self._offers_upgrade = self.parser.should_upgrade() and not self._should_upgrade()
        if self._offers_upgrade:
            return
        if b"x-forwarded-proto" in fields:
            self._take_first_scheme()
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.parser.get_method() != b"HEAD":  # no WebSocket
            self.cycle.transport = JoinedAnswer(self.transport, self._close_when_read)
        self._reading = "body"
        self._overhead_bytes = 0
        self.headers = self.headers.copy()  # collects trailers, which the app never sees

    def _take_first_scheme(self) -> None:
        """Each proxy may append the scheme that it sees: the first one is the client's. Uvicorn
        takes the last line, and ignores a list."""
        schemes = b",".join(value for name, value in self.headers if name == b"x-forwarded-proto")
        if b"," in schemes:
            self.headers.append((b"x-forwarded-proto", schemes.partition(b",")[0]))

    def on_body(self, body: bytes) -> None:
        self._overhead_bytes = 0
        self._chunks_in_part += 1
        if not self.cycle.response_complete:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if self._offers_upgrade:
            return
        self._pass_on_body()
        super().on_message_complete()
        self._reading = "nothing"
        if self.cycle and self.cycle.response_complete and not self.cycle.keep_alive:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._reading == "body" and self.cycle.response_complete:
            self._set_timer(REST_OF_BODY_SECONDS)

    def _close_when_read(self) -> None:
        """Otherwise a client that still sends its body gets a reset, and maybe no answer."""
        if self._reading != "body" or not self.cycle.response_complete:
            self.transport.close()

    def _should_upgrade(self) -> bool:
        return self.parser.get_method() == b"GET" and super()._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Parses the request again without its Upgrade header. Java's HttpClient offers HTTP/2 in
        each first request, and the parser would mistake the body for the next request."""
        [end_of_head] = sys.exception().args  # type: ignore[union-attr]  # of HttpParserUpgrade
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        fields = [b"%b: %b" % field for field in self.headers if field[0] != b"upgrade"]
        head = b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version), *fields, b"", b""])
        self.parser = HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        self._parse(head + self._part[end_of_head:])

    def send_400_response(self, msg: str) -> None:
        error = sys.exception()  # the parser's, whose text says what is wrong
        cause = error and error.__context__  # our own error, or one of uvicorn
        text = cause if isinstance(cause, Refused) else "" if cause else error
        self._refuse("400 Bad Request", str(text))

    def _pass_on_body(self) -> None:
        """Joins chunks that arrive at once: uvicorn would copy the body for each of them."""
        if self._body:
            super().on_body(b"".join(self._body))
            self._body.clear()

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

    def _owes_answers(self) -> bool:
        """Whether a complete request still waits for its answer."""
        is_waiting = self.cycle is not None and not self.cycle.response_complete
        return is_waiting and self._reading != "body"

    def _refuse(self, status: str, detail: str = "") -> None:
        if self._owes_answers():
            # The client would take the refusal for the first of these answers.
            self._reading = "refused"
            self._set_timer(None)
            self.cycle.keep_alive = False
        elif self._reading == "body" and (self.cycle.response_started or self.pipeline):
            self.transport.close()
        elif not self.transport.is_closing():
            problem = {"type": "about:blank", "title": status[4:], "status": int(status[:3])}
            body = json.dumps(problem | ({"detail": detail} if detail else {}))
            headers = f"{HEADERS_OF_REFUSALS}x-request-id: {secrets.token_hex(16)}\r\n"
            headers += f"content-type: application/problem+json\r\ncontent-length: {len(body)}"
            answer = f"HTTP/1.1 {status}\r\n{headers}\r\nconnection: close\r\n\r\n{body}"
            self.transport.write(answer.encode())
            self.transport.close()


class KnownAddress:
    """A trusted proxy may pass on any text of any length as the client's address."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        client = scope.get("client")
        if client and len(client[0]) > LONGEST_ADDRESS:
            scope["client"] = None
        await self.app(scope, receive, send)


class TrustLastAddress(_TrustedHosts):
    """Takes the last address of X-Forwarded-For. If every address is trusted, the proxy that this
    process talks to has added the last one, and a client may have invented those before it."""

    def get_trusted_client_address(self, x_forwarded_for: str) -> tuple[str, int]:
        return super().get_trusted_client_address(x_forwarded_for.rpartition(",")[2])


class LateRefusals:
    """Delays each 429, because a client that ignores refusals tries again at once: twenty
    connections of one address took a whole processor."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._delayed = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: list[Message] = []

        def send_refusals_late(message: Message) -> Awaitable[None]:
            if message.get("status") == 429:
                refusal.append(message)
                return nothing()
            return self._send_late(send, refusal, message) if refusal else send(message)

        await self.app(scope, receive, send_refusals_late)

    async def _send_late(self, send: Send, refusal: list[Message], message: Message) -> None:
        if self._delayed < MOST_DELAYED:
            self._delayed += 1  # per copy: its own connections
            try:
                await asyncio.sleep(REFUSAL_DELAY_SECONDS)
            finally:
                self._delayed -= 1  # per copy: its own connections
        await send(refusal.pop())
        await send(message)
