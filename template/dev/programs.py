# Rung's file: advancing to another stage may change it.
"""Starts the programs that dev/ needs, or says in one line which one does not run."""

import os
import shutil
import subprocess
import sys
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
