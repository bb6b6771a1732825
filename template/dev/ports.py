# Rung's file: advancing to another stage may change it.
"""Ports of this machine for local servers.

Until this process ends, Linux offers such a port to nobody else, but a server can still bind it by
its number.
"""

import atexit
import socket
import sys
from pathlib import Path


def unused() -> int:
    """A port that is free on all addresses."""
    return _hold(0)


def keep(file: Path) -> None:
    """Writes a free port to `file`: if possible the last one, because other tools may know it."""
    try:
        port = _hold(int(file.read_text()) if file.exists() else 0)
    except (OSError, ValueError):  # a full disk may have left the file empty
        port = _hold(0)
    file.write_text(str(port))


def _hold(port: int) -> int:
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        # With one address only, a connection may have the port on another.
        holder.bind(("", port))
    except OSError:
        holder.close()
        raise
    held: int = holder.getsockname()[1]
    if sys.platform == "linux":
        atexit.register(holder.close)
    else:  # elsewhere the server itself could not bind a port that is held
        holder.close()
    return held
