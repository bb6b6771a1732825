# Rung's file: advancing to another stage may change it.
"""The processors of a database's server, which Postgres does not report."""

import os
import tomllib
from pathlib import Path
from typing import Any

from app.infra.connections import DatabaseSettings

CAPACITY = Path("deploy/capacity.toml")
LOCAL = ("localhost", "127.0.0.1", "::1", None)


def processors(settings: DatabaseSettings, *keys: str) -> int | None:
    """`keys` lead to their number in deploy/capacity.toml. None if it is not known."""
    if all(host["host"] in LOCAL for host in settings.direct_url.hosts()):
        return os.cpu_count()
    try:
        found: Any = tomllib.loads(CAPACITY.read_text())
        for key in keys:
            found = found.get(key)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) and found > 0 else None
