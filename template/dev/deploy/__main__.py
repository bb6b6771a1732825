# Rung's file: advancing to another stage may change it.
"""python -m dev.deploy COMMAND: `make deploy`, `make rollback`, `make console`, `make destroy`."""

import os
import signal
import sys
from typing import Any

from dev.deploy import cost, guard
from dev.deploy.environment import folder_of


def main() -> None:
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, interrupted)
    try:
        run(sys.argv[1] if sys.argv[1:] else "plan")
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from here.", file=sys.stderr)
        sys.exit(130)


def interrupted(*_: Any) -> None:
    # Once: a second signal would end the wait for Terraform, which is saving its state.
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(one, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(command: str) -> None:
    folder = folder_of(os.environ.get("ENV", ""))
    if command == "apply":
        guard.apply(folder)
    elif command == "plan" and (folder / ".terraform").is_dir():
        guard.plan(folder, os.environ.get("IMAGE", ""))
    elif command == "cost":
        print(cost.cost(folder))
    else:
        # They need botocore, which only `make` installs.
        from dev.deploy import commands

        commands.run(command, folder)


if __name__ == "__main__":
    main()
