# Rung's file: advancing to another stage may change it.
"""Runs Terraform, Docker and git so that an interrupt never cuts them off."""

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path


class Stop(Exception):
    """Its text says what failed, why, and what to do next."""


def run(*command: str, cwd: Path = Path(), typed: str | None = None) -> bool:
    """Shows its output. An interrupt asks the program to end, and waits until it has."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
        text=True,
        start_new_session=True,  # Else Ctrl-C reaches Terraform twice, and then it saves no state.
    )
    try:
        process.communicate(typed)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    return process.returncode == 0


def output(*command: str, cwd: Path = Path()) -> str:
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, start_new_session=True
    )
    if done.returncode:
        raise Stop(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def need_terraform() -> None:
    if not shutil.which("terraform"):
        raise Stop("Terraform is not installed, or not on your PATH. Install 1.11 or newer.")


def until(seconds: float) -> Iterator[None]:
    """Yields at once, and then again after pauses that grow to 5 s, until the time is over."""
    end, pause = time.monotonic() + seconds, 0.1
    while time.monotonic() < end:
        yield
        time.sleep(pause)
        pause = min(pause * 1.5, 5)


def say(text: str) -> None:
    print(text, flush=True)
