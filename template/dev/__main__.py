# Rung's file: advancing to another stage may change it.
"""python -m dev COMMAND…: run a command with this stage's services and the app's environment."""

import os
import shutil
import signal
import subprocess
import sys

from dotenv import dotenv_values

from dev import postgres, services

# So long may a command take to end once it is told to. uvicorn's reloader can wait for itself for
# ever: one signal that comes while another is handled is enough.
SECONDS_TO_END = 5


def main() -> None:
    command = sys.argv[1:]
    refuse_what_cannot_be_run(command)
    in_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    try:
        with services.environment(in_file | dict(os.environ)) as environment:
            sys.exit(run(command, environment))
    except postgres.PostgresError as error:
        sys.exit(str(error))
    except PermissionError as error:
        sys.exit(f'{error}\nIf root or another user made it: sudo chown -R "$(id -u)" .dev')
    except KeyboardInterrupt:
        sys.exit(130)


def refuse_what_cannot_be_run(command: list[str]) -> None:
    if not command:
        sys.exit("Say what to run: python -m dev COMMAND…")
    if not shutil.which(command[0]):
        print(f"There is no program {command[0]!r} here that can be run.", file=sys.stderr)
        sys.exit(127)


def run(command: list[str], environment: dict[str, str]) -> int:
    """The command's exit code, as a shell would give it."""
    process = subprocess.Popen(command, env=environment)

    def end(*_: object) -> None:
        # What is sent to the whole group comes twice, for uv passes its own on.
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.alarm(SECONDS_TO_END)
        process.terminate()

    # Ctrl-C in a terminal reaches the command itself; we wait for it and then stop the services.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda *_: process.send_signal(signal.SIGHUP))
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
