# Rung's file: advancing to another stage may change it.
"""`make migrate`: bring each database to its newest migration."""

import os
import subprocess
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

from dev import services


def main() -> None:
    upgrade(os.environ)
    for url, history in services.databases(os.environ).items():
        print(f"The database {urlsplit(url).path[1:]} is at ", end="", flush=True)
        run(*history, "current")


def upgrade(environment: Mapping[str, str]) -> None:
    for history in services.databases(environment).values():
        run(*history, "upgrade", "head", environment=environment)


def run(
    module: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    stdout: int | None = None,
) -> str:
    """Returns its stdout, if that is a pipe. A command that fails ends this one, too."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, stdout=stdout, text=True)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return done.stdout or ""


if __name__ == "__main__":
    main()
