# Rung's file: advancing to another stage may change it.
"""`make migrate`: bring each database to its newest migration."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from dev import services
from dev.programs import run_module


def main() -> None:
    upgrade(os.environ)
    for url, history in services.databases(os.environ).items():
        print(f"The database {urlsplit(url).path[1:]} is at ", end="", flush=True)
        run_module(*history, "current")


def upgrade(environment: Mapping[str, str]) -> None:
    for history in services.databases(environment).values():
        run_module(*history, "upgrade", "head", environment=environment)


if __name__ == "__main__":
    main()
