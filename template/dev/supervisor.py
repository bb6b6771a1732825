# Rung's file: advancing to another stage may change it.
"""Shares a server between commands, and stops it after the last of them.

Each user holds a shared lock on the server's `users` file. A lock ends with its process, also after
Ctrl-C or kill -9, so a server never outlives its users.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The log of a server of `make dev` grows for years, and an error message reads the whole log.
MOST_LOG_BYTES = 10 * 1024 * 1024


@contextmanager
def shared(
    folder: Path, start: Callable[[], subprocess.Popen[bytes] | None], *, remove: bool
) -> Iterator[subprocess.Popen[bytes] | None]:
    """Keep the server of `folder` running. One user at a time calls `start`, which returns None if
    the server already runs. Yields the supervisor of a started one: it ends with its server."""
    users = _join(folder)
    supervisor = None
    started = False
    try:
        with (folder / "starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            supervisor = start()
        started = True
        yield supervisor
    finally:
        last = try_lock_alone(users)
        has_died = supervisor is not None and supervisor.poll() is not None
        if last and remove and (has_died or not started):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(users)
        if supervisor and last:
            supervisor.wait()
        elif supervisor:
            supervisor.returncode = 0  # others still use it: Python must not warn about that


def supervise(
    command: Sequence[str | Path],
    folder: Path,
    *,
    env: Mapping[str, str],
    stop_with: signal.Signals,
    user: int | None = None,
    remove: bool = False,
    output: int | None = None,
) -> subprocess.Popen[bytes]:
    """Run `command` until `folder` has no users, then `remove` the folder. The command logs to
    `folder`/log, and a long log becomes log.old. With `output`, such as PIPE, it writes there.
    `folder`/server.pid has its process id."""
    order = {
        "command": [str(part) for part in command],
        "folder": str(folder),
        "stop_with": stop_with,
        "user": user,
        "remove": remove,
    }
    path = folder / "log"
    if path.exists() and path.stat().st_size > MOST_LOG_BYTES:
        path.replace(folder / "log.old")
    with path.open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-IS", __file__],
            env=env,
            stdin=subprocess.PIPE,
            stdout=log if output is None else output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches every process of the terminal's group
        )
    assert supervisor.stdin  # noqa: S101  # PIPE opens it
    # Not as an argument: a command may hold a password, and everybody on this machine sees those.
    with supervisor.stdin as stdin:
        stdin.write(json.dumps(order).encode())
    return supervisor


def _join(folder: Path) -> int:
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            users = os.open(folder / "users", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            continue
        fcntl.flock(users, fcntl.LOCK_SH)  # waits here while the server is being stopped
        if _is_still_at(folder / "users", users):
            return users
        os.close(users)


def _is_still_at(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def try_lock_alone(descriptor: int) -> bool:
    """Takes an exclusive lock on this file, and keeps it. False if somebody else holds one."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _run(order: dict[str, Any]) -> int:
    user = order["user"]
    # A background job ignores SIGINT, and so would a server that has just begun: it never stopped.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    server = subprocess.Popen(
        order["command"], user=user, group=user, extra_groups=None if user is None else []
    )
    Path(order["folder"], "server.pid").write_text(str(server.pid))
    unused = threading.Event()

    def stop_when_unused() -> None:
        fcntl.flock(users, fcntl.LOCK_EX)
        unused.set()
        server.send_signal(order["stop_with"])

    # The file stays open and locked until the server is gone. The next user waits for that.
    with Path(order["folder"], "users").open("r+") as users:
        threading.Thread(target=stop_when_unused, daemon=True).start()
        status = server.wait()
        if order["remove"] and unused.is_set():
            shutil.rmtree(order["folder"])
    return status


if __name__ == "__main__":
    sys.exit(_run(json.load(sys.stdin)))
