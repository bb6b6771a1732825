# Rung's file: advancing to another stage may change it.
"""HAProxy on this machine, configured by deploy/haproxy.cfg as in production."""

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dev import ports, postgres, supervisor

CONFIGURATION = postgres.REPOSITORY / "deploy" / "haproxy.cfg"
START_SECONDS = 10


class HAProxyError(postgres.PostgresError):
    """The message says why HAProxy does not run, and what to do."""


@contextmanager
def running(
    copies: Sequence[int],
    *,
    port: int,
    folder: Path | None = None,
    check_every: str = "300ms",
    unlimited_clients: str = "",
) -> Iterator[str]:
    """Yields the URL of an HAProxy in front of these ports, even if nothing listens there yet.

    It ends with this process, even after kill -9.
    """
    folder = folder or postgres.temporary_folder() / f"haproxy-{secrets.token_hex(4)}"
    url = f"http://127.0.0.1:{port}"
    environment = dict(os.environ)
    if unlimited_clients:
        environment["UNLIMITED_CLIENTS"] = unlimited_clients

    def start() -> subprocess.Popen[bytes]:
        (folder / "port").write_text(str(port))
        (folder / "haproxy.cfg").write_text(configuration(copies, port, check_every))
        process = supervisor.supervise(
            [program(), "-db", "-f", folder / "haproxy.cfg"],
            folder,
            env=environment,
            stop_with=signal.SIGTERM,
            remove=True,
        )
        _wait_until_it_listens(process, port, folder / "log")
        return process

    with supervisor.shared(folder, start, remove=True):
        yield url


def program() -> str:
    # Debian has it in /usr/sbin, which the PATH of an ordinary user may lack.
    found = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise HAProxyError("haproxy is not installed: make system-packages")
    return found


def configuration(copies: Sequence[int], port: int, check_every: str) -> str:
    """Only the addresses and the interval of checks differ from production."""
    servers = (f"    server app-{n} 127.0.0.1:{copy}" for n, copy in enumerate(copies, 1))
    changes = {
        r"^    bind :8000$": f"    bind 127.0.0.1:{port}",
        r"^    bind 127\.0\.0\.1:8404$": f"    bind 127.0.0.1:{ports.unused()}",
        r"^    server-template .*$": "\n".join(servers),
        r"\binter 300ms\b": f"inter {check_every}",
    }
    written = CONFIGURATION.read_text()
    for line, here in changes.items():
        written, found = re.subn(line, here, written, flags=re.MULTILINE)
        if found != 1:
            raise HAProxyError(f"{CONFIGURATION} has {found} lines like {line}, and should have 1.")
    return written


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            end = log.read_text(errors="replace")[-2000:]
            raise HAProxyError(f"HAProxy did not start:\n{end}")
        time.sleep(0.01)
