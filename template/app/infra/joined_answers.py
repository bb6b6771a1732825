# Rung's file: advancing to another stage may change it.
"""Sends an answer's head together with the first part of its body, as ASGI asks."""

import asyncio
from collections.abc import Callable

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class JoinedAnswer(asyncio.Transport):
    """The connection of one answer with a body. Uvicorn writes twice. One write saves a system call
    and a packet, and a killed process leaves no answer with only a head.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._head = b""
        self._is_begun = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._is_begun or (data == CONTINUE and not self._head):
            self._transport.write(data)
        elif self._head:
            self._is_begun = True
            self._transport.write(self._head + data)
        else:
            self._head = bytes(data)

    def close(self) -> None:
        if self._head and not self._is_begun:
            self.write(b"")
        self._close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()
