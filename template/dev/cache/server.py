# Rung's file: advancing to another stage may change it.
"""A server on this machine that can be killed, hung and started again."""

import os
import secrets
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Self

from dev import ports, postgres, supervisor

START_SECONDS = 10


class ServerError(postgres.PostgresError):
    """Says why there is no such server, and what to do."""


class Server(ABC):
    """In a folder of its own, with a password of its own."""

    name: str

    def __init__(self, folder: Path, *, remove: bool = False) -> None:
        self.folder = folder
        self._remove = remove
        self._supervisors: list[subprocess.Popen[bytes]] = []

    @abstractmethod
    def command(self) -> Sequence[str | Path]: ...

    def environment(self) -> Mapping[str, str]:
        return os.environ

    @abstractmethod
    def serves(self) -> bool: ...

    @property
    def port(self) -> int:
        return int((self.folder / "port").read_text())

    @property
    def password(self) -> str:
        return (self.folder / "password").read_text()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Commands at the same time share it. It never outlives them, however they end."""
        with ExitStack() as stack:
            stack.callback(self._wait)
            stack.enter_context(
                supervisor.shared(self.folder, self._start_unless_running, remove=self._remove)
            )
            stack.callback(self.go_on)  # a hung one would not hear that it is to stop
            yield self

    def start(self) -> subprocess.Popen[bytes]:
        """Also again, after it has died: on the same port, with what it kept on disk."""
        process = supervisor.supervise(
            self.command(),
            self.folder,
            env=self.environment(),
            # Asked to end, Valkey first waits up to 0.1 s. Nobody will read what this one keeps.
            stop_with=signal.SIGKILL if self._remove else signal.SIGTERM,
            remove=self._remove,
        )
        self._supervisors.append(process)
        self._wait_until_it_serves(process)
        return process

    def die(self) -> None:
        """Killed, with nothing written down."""
        self.signal(signal.SIGKILL)
        self._supervisors[-1].wait()

    def hang(self) -> None:
        """Its connections stay open and are not answered, until it goes on."""
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        with suppress(ProcessLookupError):
            self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        os.kill(int((self.folder / "server.pid").read_text()), number)

    def _wait(self) -> None:
        for process in self._supervisors:
            process.wait()

    def _start_unless_running(self) -> subprocess.Popen[bytes] | None:
        secret = self.folder / "password"
        if not secret.exists():
            secret.touch(mode=0o600)
            secret.write_text(secrets.token_hex(16))
        if (self.folder / "port").exists() and self.serves():
            return None
        ports.keep(self.folder / "port")
        return self.start()

    def _wait_until_it_serves(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.serves():
            if process.poll() is not None or time.monotonic() > deadline:
                log = (self.folder / "log").read_text(errors="replace")
                raise ServerError(f"{self.name} did not start:\n{log[-2000:]}")
            time.sleep(0.01)


def own_folder(name: str) -> Path:
    """For a server that is gone after its last user."""
    return postgres.temporary_folder() / f"{name}-{secrets.token_hex(4)}"
