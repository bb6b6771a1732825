import os
import shutil
import subprocess
import sys
from pathlib import Path

from rung.git import last_line

# Locking takes 1.3 s, most of it asking the package index, and 10 s to give up without a network.
_LOCK_SECONDS = 120


def lock(project: Path) -> str | None:
    """Run `uv lock`; answers with the reason when it fails."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        return "uv is not on PATH"
    try:
        done = subprocess.run(
            [uv, "lock", "--quiet", "--python", sys.executable],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOCK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return last_line(done.stderr) if done.returncode != 0 else None
