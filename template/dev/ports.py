# Rung's file: advancing to another stage may change it.
"""Ports of this machine for local servers."""

import socket
from pathlib import Path


def unused() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def keep(file: Path) -> None:
    """Write a free port to `file`: the same as last time, which other tools may know, if it can."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(file.read_text()) if file.exists() else 0))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        file.write_text(str(listener.getsockname()[1]))
