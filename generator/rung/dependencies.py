"""Locks a project's dependencies with uv."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from rung.git import last_line

# Locking takes 1.3 s, most of it for the package index. Without a network uv fails after 10 s.
_LOCK_SECONDS = 120

# Where packages come from on this machine. No other UV_* variable may change a project's lock.
_KEPT = (
    "UV_CACHE_DIR",
    "UV_CONCURRENT_",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_",
    "UV_INDEX",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_LINK_MODE",
    "UV_NATIVE_TLS",
    "UV_PYTHON_INSTALL_MIRROR",
    "UV_SYSTEM_CERTS",
)


def lock_dependencies(project: Path) -> str | None:
    """Run `uv lock`; returns the reason when it fails."""
    uv = find_uv()
    if uv is None:
        return "uv is not installed"
    # With rung's own Python, uv downloads none. But the project may need a newer one.
    failure = _lock(uv, project, "--python", sys.executable)
    if failure and "the project's Python requirement" in failure:
        return _lock(uv, project)
    return failure


def not_locked(failure: str) -> str:
    return f"Dependencies are not locked ({failure}): run `sh dev/uv lock` in the repo."


def find_uv() -> str | None:
    """$UV, uv from PATH, or the one that `make install` or a project's dev/uv fetched."""
    # Path.expanduser raises where a container's user has no home.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111
    candidates = (os.environ.get("UV"), "uv", f"{cache}/uv-bootstrap/uv")
    return next(filter(None, (shutil.which(one) for one in candidates if one)), None)


def _lock(uv: str, project: Path, *options: str) -> str | None:
    try:
        done = subprocess.run(
            [uv, "lock", "--quiet", *options],
            cwd=project,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=_LOCK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode != 0:
        cause, hint, advice = done.stderr.partition("hint: ")
        return last_line(cause) + (f" {hint}{last_line(advice)}" if hint else "")
    return None if (project / "uv.lock").is_file() else "uv wrote no uv.lock"


def _environment() -> dict[str, str]:
    dropped = {"VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONUTF8", "PYTHONIOENCODING"}
    return {
        name: value
        for name, value in os.environ.items()
        if name not in dropped and (not name.startswith("UV") or name.startswith(_KEPT))
    }
