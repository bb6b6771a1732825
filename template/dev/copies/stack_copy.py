# Rung's file: advancing to another stage may change it.
"""One copy of the app: a process as in production, which can be stopped, killed and restarted."""

import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from dev.load import App

APP = (sys.executable, "-m", "app.infra.serve")


class Copy(App):
    """running() yields it before it is ready, so that several copies start at the same time."""

    def __init__(
        self, folder: Path, environment: Mapping[str, str], program: Sequence[str] = APP
    ) -> None:
        super().__init__(folder, environment)
        self.name = folder.name
        self._program = program
        self._stop_with = signal.SIGKILL  # its users are gone, so nobody sends requests

    def command(self) -> Sequence[str]:
        return self._program

    def environment(self) -> Mapping[str, str]:
        given = super().environment()
        return {**given, "PORT": str(self.port), "LISTEN_ADDRESS": "127.0.0.1"}

    def start(self) -> subprocess.Popen[bytes]:
        """Does not wait until it is ready. A copy that has ended starts again on the same port."""
        return self._begin()

    def stop(self) -> None:
        """Stops it as a deploy does: the copy drains, then ends."""
        self.signal(signal.SIGTERM)

    def wait(self) -> int:
        return self._supervisors[-1].wait()
