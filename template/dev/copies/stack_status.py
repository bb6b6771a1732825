# Rung's file: advancing to another stage may change it.
"""A table of the servers that `make` commands have started for this repo."""

import os
import re
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from dev import postgres, supervisor

READY = b"GET /ready HTTP/1.0\r\n\r\n"
# Any answer shows that the server is up: it needs no password for an error in its protocol.
ANYTHING = b"GET / HTTP/1.0\r\n\r\n"
IS_THERE_TLS = bytes([0, 0, 0, 8, 4, 210, 22, 47])  # Postgres' SSLRequest
PING = b"PING\r\n"


class Kind(NamedTuple):
    """A kind of server: the prefix of its folder's name, and its answer when it is healthy."""

    name: str
    what: str
    question: bytes


# In the order of the table, which is the path of a request.
KINDS = (
    Kind("haproxy", "load balancer", READY),
    Kind("app-", "copy of the app", READY),
    Kind("pgbouncer", "PgBouncer", IS_THERE_TLS),
    Kind("postgres-replica", "Postgres, replica", IS_THERE_TLS),
    Kind("postgres", "Postgres, primary", IS_THERE_TLS),
    Kind("cache", "Valkey, cache", PING),
    Kind("sessions", "Valkey, login sessions", PING),
    Kind("s3", "S3, files", ANYTHING),
    Kind("traces", "OTLP receiver", ANYTHING),
)
UNKNOWN = Kind("", "server", ANYTHING)

HEAD = ("name", "what", "address", "pid", "state", "ready")


def main() -> None:
    rows = sorted(table())
    if not rows:
        sys.exit("Nothing runs here. To start it all: make stack COPIES=3")
    lines = [HEAD, *(row for _, row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  " + "  ".join(map(str.ljust, line, widths)).rstrip())


def table() -> Iterator[tuple[int, Sequence[str]]]:
    """The rows, each with its address."""
    state = postgres.state_folder()
    for users in (*state.glob("*/users"), *state.glob("stack/*/users")):
        folder = users.parent
        if _is_in_use(users) and (folder / "port").exists():
            kind = next((kind for kind in KINDS if folder.name.startswith(kind.name)), UNKNOWN)
            yield (*KINDS, UNKNOWN).index(kind), _row(folder, kind)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _row(folder: Path, kind: Kind) -> Sequence[str]:
    port = int((folder / "port").read_text())
    pid = _pid(folder)
    state = "running" if pid and is_alive(pid) else "ended"
    ready = _readiness(port, kind.question)
    name = re.sub(r"-[0-9a-f]{8}$", "", folder.name)
    return (name, kind.what, f"127.0.0.1:{port}", str(pid or "-"), state, ready)


def _pid(folder: Path) -> int | None:
    try:
        return int((folder / "server.pid").read_text())
    except (FileNotFoundError, ValueError):
        return None


def _readiness(port: int, question: bytes) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2) as server:
            server.sendall(question)
            answer = server.recv(4096)
    except TimeoutError:
        return "no, silent"
    except OSError:
        return "no, nobody listens"
    if question is READY and b" 200 " not in answer[:20]:
        return "no, it says 503"
    return "yes" if answer else "no, it closes the connection"


def _is_in_use(users: Path) -> bool:
    """A command that uses a server holds a shared lock on this file."""
    with users.open() as file:
        return not supervisor.try_lock_alone(file.fileno())


if __name__ == "__main__":
    main()
