# Rung's file: advancing to another stage may change it.
"""Ports of this machine for local servers."""

import atexit
import socket
import sys
from pathlib import Path


def unused() -> int:
    """A port that is free on all addresses. Until this process ends, the system offers it to nobody
    else, but a server can still bind it by its number."""
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("", 0))  # with one address only, a connection may use the port on another
    port: int = holder.getsockname()[1]
    if sys.platform == "linux":
        atexit.register(holder.close)
    else:  # elsewhere the server itself could not bind a port that is held
        holder.close()
    return port


def keep(file: Path) -> None:
    """Writes a free port to `file`: if possible the last one, because other tools may know it."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", int(file.read_text()) if file.exists() else 0))
        except OSError:
            listener.bind(("127.0.0.1", 0))
        file.write_text(str(listener.getsockname()[1]))
