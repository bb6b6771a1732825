"""Runs a project's own doctor, and shows its last verdict."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from rung import git
from rung.dependencies import find_uv
from rung.errors import RungError, printable
from rung.project import locate
from rung.reading import UnreadableError, read_bytes

VERDICT = Path(".dev/doctor.json")
_FILES = ("--log", "--evidence", "--from", "--html")
_DOCTOR = Path("app/infra/doctor/__main__.py")

# Rung's own environment must not become the project's, and no other project's doctor may run.
_NOT_INHERITED = {"UV_PROJECT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY", "VIRTUAL_ENV"}


def run_doctor(path: Path, arguments: Sequence[str]) -> NoReturn:
    """Run it on the database of `make dev` or on DATABASE_URL. Its exit code is that of Rung."""
    git.fence()
    folder, _ = locate(path)
    if not (folder / _DOCTOR).is_file():
        raise RungError("This repo has no doctor yet. Run rung upgrade first.")
    uv = find_uv()
    if uv is None:
        raise RungError("uv is not installed. Run make doctor in the repo instead.")
    module = ["python", "-m", "app.infra.doctor", *_absolute(arguments)]
    if not any(one.startswith(("--from", "-h", "--help")) for one in arguments):
        module = ["python", "-m", "dev", *module]
    environment = {key: value for key, value in os.environ.items() if key not in _NOT_INHERITED}
    sys.stdout.flush()
    os.chdir(folder)
    # uv takes this process over, because a signal to a parent of it would not reach the doctor.
    os.execve(uv, [uv, "run", "--quiet", *module], environment)  # noqa: S606


def _absolute(arguments: Sequence[str]) -> list[str]:
    """The doctor runs in the project's folder, but typed paths are relative to this one."""
    given, option = [], ""
    for one in arguments:
        name, sign, value = one.partition("=")
        if name in _FILES and sign:
            one = f"{name}={_resolved(value)}"
        elif one.startswith("--"):
            option = one
        elif option in _FILES:
            one = _resolved(one)
        given.append(one)
    return given


def _resolved(file: str) -> str:
    return file if file == "-" else str(Path(file).resolve())


def last_verdict(folder: Path, now: datetime | None = None) -> str:
    """One line for a person before an advance."""
    try:
        found = json.loads(read_bytes(folder / VERDICT))
        verdict, at = found["verdict"], datetime.fromisoformat(found["at"])
        stage, text = verdict["advance_to"], str(verdict["text"])
        age = (now or datetime.now(UTC)) - at
    except (ArithmeticError, LookupError, RecursionError, TypeError, UnreadableError, ValueError):
        return "Doctor: has not run yet. To measure first: rung doctor"
    advice = f"advance to stage {stage}" if stage else "stay"
    if verdict.get("rule") in ("not-known", "too-little-evidence"):
        advice = "not known"
    return printable(f"Doctor, {_in_words(age.total_seconds())} ago: {advice}. It saw: {text}.")


def _in_words(seconds: float) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'}"
    return "less than a minute"
