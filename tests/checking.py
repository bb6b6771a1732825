"""Runs `make check` in a generated project, as a team does before a commit."""

import os
import subprocess
from pathlib import Path

MINUTES = 60


def make_check(project: Path, *, slow_tests: bool = True) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    if not slow_tests:
        environment["PYTEST_ADDOPTS"] = "-m 'not slow'"
    done = subprocess.run(
        ["make", "check"],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, _told(done.stdout)[-20_000:] + done.stderr[-4000:]


def _told(output: str) -> str:
    """Drops the app's line for each request: these lines would hide everything else."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if '"event":"request"' not in line)
