"""What a team runs before every commit."""

import os
import subprocess
from pathlib import Path

MINUTES = 60


def make_check(project: Path) -> None:
    done = subprocess.run(
        ["make", "check"],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
