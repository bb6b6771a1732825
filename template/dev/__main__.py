# Rung's file: advancing to another stage may change it.
"""python -m dev COMMAND…: run a command with this stage's services and the app's environment."""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from dotenv import dotenv_values

from dev import postgres, services
from dev.server import ServerError

# A command that does not end within this time is killed. uvicorn's reloader can wait for itself
# forever, if a second signal comes while it handles the first.
SECONDS_TO_END = 5

SHARED = postgres.REPOSITORY / ".dev" / "environment.json"


def main() -> None:
    command = sys.argv[1:]
    refuse_unless_it_can_run(command)
    in_file = {name: value for name, value in dotenv_values(".env").items() if value is not None}
    try:
        with services.environment(in_file | dict(os.environ)) as environment, shared(environment):
            sys.exit(run(command, environment))
    except ServerError as error:
        sys.exit(str(error))
    except PermissionError as error:
        owner = 'If another user owns it: sudo chown -R "$(id -u)" .dev.'
        sys.exit(f"{error}\n{owner} If it is a program: mount its disk without noexec.")
    except OSError as error:
        sys.exit(f"{error}\nRemove the cause, or set DATABASE_URL to your own Postgres.")
    except KeyboardInterrupt:
        sys.exit(130)


def refuse_unless_it_can_run(command: list[str]) -> None:
    if not command:
        sys.exit("Say what to run: python -m dev COMMAND…")
    if not shutil.which(command[0]):
        print(f"Cannot run {command[0]!r}: there is no such program here.", file=sys.stderr)
        sys.exit(127)


@contextmanager
def shared(environment: Mapping[str, str]) -> Iterator[None]:
    """Shares this command's variables with app.infra.environment in other shells. A shell with a
    DATABASE_URL shares nothing, because that may lead to any server."""
    if os.environ.get("DATABASE_URL"):
        yield
        return
    changed = {name for name, _ in environment.items() ^ os.environ.items()}
    own = {name: environment.get(name) for name in changed}
    SHARED.parent.mkdir(exist_ok=True)
    written = SHARED.with_suffix(f".{os.getpid()}")
    written.touch(mode=0o600)
    written.write_text(json.dumps(own), encoding="utf-8")
    # Readable too: NFS refuses a shared lock on a file that is open for writing alone.
    with SHARED.with_suffix(".lock").open("w+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        written.replace(SHARED)
        yield


def run(command: list[str], environment: dict[str, str]) -> int:
    """Returns the exit code that a shell would return."""
    try:
        process = subprocess.Popen(command, env=environment)
    except OSError as error:
        print(f"Cannot run {command[0]!r}: {error.strerror}.", file=sys.stderr)
        return 126

    def end(*_: object) -> None:
        # A signal to the whole process group arrives twice, because uv passes its signal on.
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.alarm(SECONDS_TO_END)
        process.terminate()

    # Ctrl-C in a terminal reaches the command too. Wait for its end, then stop the services.
    signal.signal(signal.SIGINT, lambda *_: None)
    signal.signal(signal.SIGALRM, lambda *_: process.kill())
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, lambda *_: process.send_signal(signal.SIGHUP))
    status = process.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    main()
