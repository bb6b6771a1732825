# Rung's file: advancing to another stage may change it.
"""A server process on this machine that can be killed, stopped and started again."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from dev import ports, supervisor

# Long, for a busy machine, or while Postgres replays its WAL. A server that fails ends at once.
START_SECONDS = 60


class ServerError(Exception):
    """The message says why a server does not run and what to do. Commands end with it. It is no
    SystemExit, because tests' fixtures raise it too: pytest would hide it from all but one test."""


class Server(ABC):
    """Each has its own folder and port."""

    name: str
    user: int | None = None

    def __init__(self, folder: Path, *, remove: bool = False) -> None:
        self.folder = folder
        self._remove = remove
        # With SIGTERM Valkey takes up to 0.1 s to end. Nobody needs data that will be removed.
        self._stop_with = signal.SIGKILL if remove else signal.SIGTERM
        self._supervisors: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def command(self) -> Sequence[str | Path]: ...

    def environment(self) -> Mapping[str, str]:
        return os.environ

    def serves(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0

    def is_running(self) -> bool:
        return (self.folder / "port").exists() and self.serves()

    @property
    def port(self) -> int:
        return int((self.folder / "port").read_text() or 0)  # a full disk may have left it empty

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return int((self.folder / "server.pid").read_text())

    @property
    def password(self) -> str:
        return secret_in(self.folder / "password")

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Concurrent commands share it. It ends with the last of them, even after kill -9."""
        with ExitStack() as stack:
            stack.callback(self._wait)
            stack.enter_context(
                supervisor.shared(self.folder, self._start_unless_running, remove=self._remove)
            )
            stack.callback(self.go_on)  # a stopped process does not receive SIGTERM
            yield self

    def start(self) -> subprocess.Popen[bytes]:
        """Starts it, also after it has died: on the same port, with the same disk."""
        process = self._begin()
        self.wait_until_ready()
        return process

    def _begin(self) -> subprocess.Popen[bytes]:
        (self.folder / "server.pid").unlink(missing_ok=True)
        process = supervisor.supervise(
            self.command(),
            self.folder,
            env=self.environment(),
            user=self.user,
            stop_with=self._stop_with,
            remove=self._remove,
        )
        self._supervisors.append(process)
        return process

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        pid = self.folder / "server.pid"
        while not (pid.exists() and pid.read_text() and self.serves()):
            is_late = time.monotonic() > deadline
            if is_late or self.has_ended():
                silent = f"did not answer for {START_SECONDS} s"
                why = silent if is_late else "stopped while starting"
                raise ServerError(f"{self.name} {why}. {end_of(self.folder / 'log')}")
            time.sleep(0.01)

    def has_ended(self) -> bool:
        return self._supervisors[-1].poll() is not None

    def die(self) -> None:
        """Kills it: it writes nothing more to disk."""
        self.signal(signal.SIGKILL)
        self._supervisors[-1].wait()

    def hang(self) -> None:
        """Stops it: its connections stay open and get no answer until go_on()."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        with suppress(ProcessLookupError, FileNotFoundError, ValueError):  # ended, or not begun yet
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def _wait(self) -> None:
        for process in self._supervisors:
            process.wait()

    def _start_unless_running(self) -> subprocess.Popen[bytes] | None:
        if self.is_running():
            return None
        ports.keep(self.folder / "port")
        return self.start()


def secret_in(file: Path) -> str:
    """Made once. A full disk or a power failure may have left the file empty."""
    file.touch(mode=0o600)
    if not file.read_text():
        file.write_text(secrets.token_hex(16))
    return file.read_text()


def end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-15:]
    return "\n".join([f"The end of {log}:", *lines])


def installed(name: str) -> str:
    """Path of a program of the system's, or how to install it."""
    # Debian has it in /usr/sbin, which the PATH of an ordinary user may lack.
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise ServerError(f"{name} is not installed: make system-packages")
    return found
