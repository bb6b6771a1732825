# Rung's file: advancing to another stage may change it.
"""make traces: shows the last requests of `make dev` as a waterfall in the browser."""

import http.client
import os
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev import ports, postgres, supervisor

SERVER = Path(__file__).with_name("traces_server.py")
START_SECONDS = 10


class TracesError(postgres.PostgresError):
    """The server for traces did not start."""


def main() -> None:
    if not _is_listening():
        sys.exit(
            "No server for traces is running. Start `make dev`, send a request, and try again."
        )
    print(f"\n  Traces  {_url()}\n")
    webbrowser.open(_url())


@contextmanager
def for_development() -> Iterator[str]:
    """URL of a server that keeps the last traces. Commands that run at once share it."""
    with supervisor.shared(_folder(), _start_unless_running, remove=False):
        yield _url()


def _start_unless_running() -> subprocess.Popen[bytes] | None:
    if _is_listening():
        return None
    ports.keep(_folder() / "port")
    process = supervisor.supervise(
        [sys.executable, SERVER, _port()],
        _folder(),
        env={**os.environ, "PYTHONPATH": str(postgres.REPOSITORY)},
        stop_with=signal.SIGTERM,
    )
    deadline = time.monotonic() + START_SECONDS
    while not _is_listening():
        if process.poll() is not None or time.monotonic() > deadline:
            log = (_folder() / "log").read_text(errors="replace")
            raise TracesError(f"The server for traces did not start:\n{log[-2000:]}")
        time.sleep(0.02)
    return process


def _is_listening() -> bool:
    if not (_folder() / "port").exists():
        return False
    client = http.client.HTTPConnection("127.0.0.1", int(_port()), timeout=1)
    try:
        client.request("GET", "/")
        # Another program may have taken the port since last time.
        return client.getresponse().headers["Traces-Of"] == SERVER.as_uri()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        client.close()


def _url() -> str:
    return f"http://127.0.0.1:{_port()}"


def _port() -> str:
    return (_folder() / "port").read_text()


def _folder() -> Path:
    return postgres.state_folder() / "traces"


if __name__ == "__main__":
    main()
