# Rung's file: advancing to another stage may change it.
"""Limits that uvicorn does not have for a WebSocket: slow readers, and floods of pings."""

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.infra.answers import in_turn
from app.infra.http_limits import LEAST_READ_BYTES, ReadInTime


class LimitedWebSocket(ReadInTime, WebSocketsSansIOProtocol):
    """serve.py imports it only for an app that has a WebSocket."""

    async def send(self, message: Any) -> None:
        await in_turn(super().send(message))

    def handle_ping(self) -> None:
        """A client that sends pings and reads no pongs filled memory: 375 MB in 30 s. One that only
        reads slowly gets its pongs, or it would close the connection."""
        if self.transport.get_write_buffer_size() < LEAST_READ_BYTES:
            super().handle_ping()
        else:
            self.conn.data_to_send()  # drops it
