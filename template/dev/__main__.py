# Rung's file: advancing to another stage may change it.
"""python -m dev COMMAND…: run a command with this stage's services and the app's environment."""

import os
import signal
import subprocess
import sys

from dotenv import dotenv_values

from dev import postgres, services


def main() -> None:
    in_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    try:
        with services.environment(in_file | dict(os.environ)) as environment:
            sys.exit(run(sys.argv[1:], environment))
    except postgres.PostgresError as error:
        sys.exit(str(error))
    except PermissionError as error:
        sys.exit(f'{error}\nIf root or another user made it: sudo chown -R "$(id -u)" .dev')
    except KeyboardInterrupt:
        sys.exit(130)


def run(command: list[str], environment: dict[str, str]) -> int:
    """The command's exit code, as a shell would give it."""
    process = subprocess.Popen(command, env=environment)
    # Ctrl-C in a terminal reaches the command itself; we wait for it and then stop the services.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    signal.signal(signal.SIGHUP, lambda *_: process.send_signal(signal.SIGHUP))
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
