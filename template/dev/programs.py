# Rung's file: advancing to another stage may change it.
"""Starts the programs that dev/ needs, or says in one line which one does not run."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path


def run(
    name: str,
    *arguments: str | Path,
    cwd: str | Path | None = None,
    capture_output: bool = False,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Looks beside this Python first, so that it does not matter whether a shell has activated the
    virtual environment."""
    beside = str(Path(sys.executable).parent)
    path = os.pathsep.join((beside, os.environ.get("PATH") or os.defpath))
    command = [shutil.which(name, path=path) or name, *arguments]
    try:
        return subprocess.run(
            command,
            cwd=cwd,
            capture_output=capture_output,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{name} did not end within {timeout:.0f} s. Run it again, or check why it hangs.")
    except OSError as error:
        sys.exit(f"Cannot run {name}: {error.strerror}. Run make setup, or install it.")


def run_module(
    name: str,
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> str:
    """Runs a Python module. Returns its stdout, if that is a pipe. A module that fails ends this
    command, too."""
    command = [sys.executable, "-m", name, *arguments]
    done = subprocess.run(command, env=environment, stdout=stdout, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout or ""
