"""Runs `make check` in a generated project, as a team does before a commit, or a drive of ours."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

MINUTES = 60


def make_check(project: Path, *, slow_tests: bool = True, tests: str = "") -> None:
    """With all tests, or with those that `tests` names, in pytest's words."""
    environment = dict(os.environ)
    options = [environment.get("PYTEST_ADDOPTS", ""), tests, "" if slow_tests else "-m 'not slow'"]
    environment["PYTEST_ADDOPTS"] = " ".join(options)
    done = subprocess.run(
        ["make", "check"],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20 * MINUTES,  # a machine may be slow
        check=False,
    )
    assert done.returncode == 0, _told(done.stdout)[-20_000:] + done.stderr[-4000:]


def driven(made: Path, project: Path, *drives: str | Path) -> Any:
    """The report of the last of these drives, run in a copy of a generated project."""
    shutil.copytree(made, project)
    for drive in drives:
        shutil.copytree(Path(__file__).parent / "drives" / drive, project / Path(drive).name)
    done = subprocess.run(
        ["sh", "dev/uv", "run", "--quiet", "python", "-m", f"{drives[-1]}.drive"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=15 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout)


def _told(output: str) -> str:
    """Drops the app's line for each request: these lines would hide everything else."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if '"event":"request"' not in line)
