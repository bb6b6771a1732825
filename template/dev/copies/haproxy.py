# Rung's file: advancing to another stage may change it.
"""HAProxy on this machine, configured by deploy/haproxy.cfg as in production."""

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.request import urlopen

from dev import ports, postgres
from dev.server import Server, ServerError, installed

CONFIGURATION = postgres.REPOSITORY / "deploy" / "haproxy.cfg"

# Another process may take the port of the status page first. Each try has another port.
TRIES = 3


class HAProxy(Server):
    """Leads to the ports of copies, even if nothing listens there yet."""

    name = "HAProxy"

    def __init__(
        self,
        folder: Path,
        port: int,
        copies: Sequence[int],
        *,
        check_every: str = "300ms",
        unlimited_clients: str = "",
    ) -> None:
        super().__init__(folder, remove=True)
        self._given_port = port
        self._copies = copies
        self._check_every = check_every
        self._unlimited_clients = unlimited_clients

    def command(self) -> list[str | Path]:
        return [program(), "-db", "-f", self.folder / "haproxy.cfg"]

    def environment(self) -> Mapping[str, str]:
        given = self._unlimited_clients
        return {**os.environ, **({"UNLIMITED_CLIENTS": given} if given else {})}

    def serves(self) -> bool:
        """HAProxy listens before it is ready, and then ends if one of its ports is taken."""
        status = (self.folder / "status").read_text()
        with suppress(OSError, HTTPException), urlopen(f"http://{status}", timeout=1):
            return True
        return False

    def _start_unless_running(self) -> subprocess.Popen[bytes]:
        (self.folder / "port").write_text(str(self._given_port))
        tries = TRIES
        while True:
            status = f"127.0.0.1:{ports.unused()}"
            (self.folder / "status").write_text(status)
            written = configuration(self._copies, self.port, status, self._check_every)
            (self.folder / "haproxy.cfg").write_text(written)
            try:
                return self.start()
            except ServerError as error:
                tries -= 1
                if not tries or "Address already in use" not in str(error):
                    raise


def program() -> str:
    return installed("haproxy")


def configuration(copies: Sequence[int], port: int, status: str, check_every: str) -> str:
    """Only the addresses and the interval of checks differ from production."""
    servers = (f"    server app-{n} 127.0.0.1:{copy}" for n, copy in enumerate(copies, 1))
    changes = {
        r"^    bind :8000$": f"    bind 127.0.0.1:{port}",
        r"^    bind 127\.0\.0\.1:8404$": f"    bind {status}",
        r"^    server-template .*$": "\n".join(servers),
        r"\binter 300ms\b": f"inter {check_every}",
    }
    written = CONFIGURATION.read_text()
    for line, here in changes.items():
        written, found = re.subn(line, here, written, flags=re.MULTILINE)
        if found != 1:
            raise ServerError(f"{CONFIGURATION} has {found} lines like {line}, and should have 1.")
    return written
