# Rung's file: advancing to another stage may change it.
"""One copy of the app: a process as in production, which can be stopped, killed and restarted."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from dev import ports, postgres, supervisor

READY_SECONDS = 60


APP = (sys.executable, "-m", "app.infra.serve")


class CopyError(postgres.PostgresError):
    """The message says why a copy does not become ready."""


class Copy:
    """Its folder holds its port, its process id and its log."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], program: Sequence[str] = APP
    ) -> None:
        self.name = folder.name
        self._folder = folder
        self._environment = environment
        self._program = program
        self._supervisors: list[subprocess.Popen[bytes]] = []
        folder.mkdir(parents=True, exist_ok=True)
        ports.keep(folder / "port")
        self.port = int((folder / "port").read_text())

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return int((self._folder / "server.pid").read_text())

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> subprocess.Popen[bytes]:
        """Does not wait until it is ready. A copy that has ended starts again on the same port."""
        (self._folder / "server.pid").unlink(missing_ok=True)
        process = supervisor.supervise(
            self._program,
            self._folder,
            env={**self._environment, "PORT": str(self.port), "LISTEN_ADDRESS": "127.0.0.1"},
            stop_with=signal.SIGKILL,  # its users are gone, so nobody sends requests
        )
        self._supervisors.append(process)
        return process

    def stop(self) -> None:
        """Stops it as a deploy does: the copy drains, then ends."""
        os.kill(self.pid, signal.SIGTERM)

    def die(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Returns its exit code."""
        return self._supervisors[-1].wait()

    def has_ended(self) -> bool:
        return self._supervisors[-1].poll() is not None

    def is_ready(self) -> bool:
        try:
            with urlopen(f"{self.url}/ready", timeout=2):  # noqa: S310  # http
                return True
        except (URLError, OSError):
            return False

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if self.has_ended() or time.monotonic() > deadline:
                raise CopyError(f"{self.name} did not become ready:\n{self.log[-2000:]}")
            time.sleep(0.02)


@contextmanager
def running(
    folder: Path, environment: Mapping[str, str], program: Sequence[str] = APP
) -> Iterator[Copy]:
    """Yields it before it is ready. It ends with this process, even after kill -9."""
    copy = Copy(folder, environment, program)
    try:
        with supervisor.shared(folder, copy.start, remove=False):
            yield copy
    finally:
        for process in copy._supervisors:
            process.wait()
