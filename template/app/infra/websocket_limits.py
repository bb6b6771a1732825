# Rung's file: advancing to another stage may change it.
"""Limits of a WebSocket that uvicorn lacks: slow readers, tiny frames, pings and pongs."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.infra.answers import in_turn
from app.infra.http_limits import ReadInParts, ReadInTime


class LimitedWebSocket(ReadInTime, ReadInParts, WebSocketsSansIOProtocol):
    """serve.py imports it only for an app that has a WebSocket."""

    # Its parser is Python: 43,000 empty frames in one read of 256 KiB took a second.
    _part_bytes = 1024
    _many_chunks = 100
    _pong = b""  # waits until the client has read what was sent before

    async def send(self, message: Any) -> None:
        await in_turn(super().send(message))

    def handle_events(self) -> None:
        self._chunks_in_part = len(self.conn.events)
        super().handle_events()
        if self._chunks_in_part > self._many_chunks:
            self.read_paused = False  # otherwise the app would resume it while it rests

    def _app_pauses(self) -> bool:
        # handle_events has set it to False while the connection rests.
        self.read_paused = not self.close_sent and not self.queue.empty()
        return self.read_paused

    def handle_ping(self) -> None:
        """While a client does not read, only its last pings get a pong, as RFC 6455 allows. With a
        pong for each, one that sent pings and read nothing filled memory: 375 MB in 30 s."""
        # The first of several pings in one part brings the pongs of all.
        self._pong = b"".join(self.conn.data_to_send()) or self._pong
        if not self.transport.get_write_buffer_size():
            self._send_pong()

    def keepalive_timeout(self) -> None:
        """The client's pong may be unread behind a message that the app has not received. Some
        routes never receive."""
        if self.read_paused:
            self.pong_timer = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._send_pong()

    def _send_pong(self) -> None:
        pong, self._pong = self._pong, b""
        self.transport.write(pong)
