# Rung's file: advancing to another stage may change it.
"""Runs Terraform, Docker and git so that an interrupt never kills them."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# deploy/aws/versions.tf says the same.
OLDEST_TERRAFORM = (1, 11)


class Stop(SystemExit):
    """Ends the command. Its text says what failed, why, and what to do next."""


def run(*command: str, cwd: Path = Path(), typed: str | None = None) -> bool:
    """Shows its output. An interrupt asks the program to end, and waits until it has."""
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL if typed is None else subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C twice would end Terraform before it saves its state.
        )
    except OSError as error:
        raise does_not_start(command[0], error) from error
    try:
        process.communicate(typed)
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.wait()
        raise
    return process.returncode == 0


def output(*command: str, cwd: Path = Path()) -> str:
    try:
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, start_new_session=True
        )
    except OSError as error:
        raise does_not_start(command[0], error) from error
    if done.returncode:
        raise Stop(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def does_not_start(program: str, error: OSError) -> Stop:
    return Stop(f"Cannot run {program}: {error.strerror}. Is it installed, and on your PATH?")


@cache
def need_terraform() -> None:
    """Checked before anything is created: Terraform checks its version only when it begins."""
    newer = f"Install {'.'.join(map(str, OLDEST_TERRAFORM))} or newer."
    if not shutil.which("terraform"):
        raise Stop(f"Terraform is not installed, or not on your PATH. {newer}")
    asked = ("terraform", "version", "-json")
    # Without this variable Terraform asks the internet for a newer version.
    environment = os.environ | {"CHECKPOINT_DISABLE": "1"}
    try:
        done = subprocess.run(asked, capture_output=True, check=True, env=environment)
        version = str(json.loads(done.stdout)["terraform_version"])
        found = tuple(int(number) for number in version.split("-")[0].split("."))
    except (OSError, subprocess.CalledProcessError, ValueError, KeyError) as error:
        raise Stop(f"Terraform does not start: `{' '.join(asked)}` fails. {newer}") from error
    if found < OLDEST_TERRAFORM:
        raise Stop(f"Terraform {version} is too old. {newer}")


def until(seconds: float) -> Iterator[None]:
    """Yields at once, and then again after pauses that grow to 5 s, until the time is over."""
    end, pause = time.monotonic() + seconds, 0.1
    while time.monotonic() < end:
        yield
        time.sleep(pause)
        pause = min(pause * 1.5, 5)


def say(text: str) -> None:
    print(text, flush=True)
