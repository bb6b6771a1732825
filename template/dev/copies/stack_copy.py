# Rung's file: advancing to another stage may change it.
"""One copy of the app: a process as in production, which can be stopped, killed and restarted."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

from dev import ports
from dev.server import Server

APP = (sys.executable, "-m", "app.infra.serve")


class Copy(Server):
    """running() yields it before it is ready, so that several copies start at the same time."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], program: Sequence[str] = APP
    ) -> None:
        super().__init__(folder)
        self.name = folder.name
        self._environment = environment
        self._program = program
        self._stop_with = signal.SIGKILL  # its users are gone, so nobody sends requests

    def command(self) -> Sequence[str]:
        return self._program

    def environment(self) -> Mapping[str, str]:
        return {**self._environment, "PORT": str(self.port), "LISTEN_ADDRESS": "127.0.0.1"}

    def serves(self) -> bool:
        with suppress(OSError), urlopen(f"{self.url}/ready", timeout=2):  # noqa: S310  # http
            return True
        return False

    def start(self) -> subprocess.Popen[bytes]:
        """Does not wait until it is ready. A copy that has ended starts again on the same port."""
        return self._begin()

    def stop(self) -> None:
        """Stops it as a deploy does: the copy drains, then ends."""
        self.signal(signal.SIGTERM)

    def wait(self) -> int:
        return self._supervisors[-1].wait()

    def _start_unless_running(self) -> subprocess.Popen[bytes]:
        ports.keep(self.folder / "port")
        return self.start()
