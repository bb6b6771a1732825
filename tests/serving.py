"""Runs commands in a generated project, and `make dev` or `make stack`."""

import os
import runpy
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest

PORTS = runpy.run_path(str(Path(__file__).parents[1] / "template/dev/ports.py"))
free_port: Callable[[], int] = PORTS["unused"]
keep_port: Callable[[Path], None] = PORTS["keep"]


def run(*command: str, within: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=within,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@contextmanager
def make_dev(project: Path, port: int, target: str = "dev") -> Iterator[str]:
    """Returns the URL when the app is ready."""
    # Variables that lead to another server or another folder must have no effect.
    environment = os.environ | {
        "PGSSLMODE": "require",
        "PGHOST": "192.0.2.1",
        "PGOPTIONS": "-c nonsense=1",
        "http_proxy": "http://127.0.0.1:9",
        "PYTHONSAFEPATH": "1",
    }
    log = project.with_suffix(".log")
    with log.open("w") as output:
        server = subprocess.Popen(
            ["make", target, f"PORT={port}"],
            cwd=project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        _wait_until_ready(f"http://127.0.0.1:{port}/ready", server, log)
        yield f"http://localhost:{port}"
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=30)
    left = subprocess.run(
        ["pgrep", "-f", str(project)], capture_output=True, text=True, check=False
    )
    assert left.stdout == "", f"something outlives make {target}"


def _wait_until_ready(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert server.poll() is None, log.read_text(encoding="utf-8")
        try:
            with urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(log.read_text(encoding="utf-8"))
