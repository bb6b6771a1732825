# Rung's file: advancing to another stage may change it.
"""Reads settings from environment variables, or stops the process with a message."""

import fcntl
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

# `make dev` shares its variables with commands in other shells through this file. Its path does not
# depend on the current folder. Production has no .dev, so nothing is read there.
SHARED = Path(__file__).parents[2] / ".dev" / "environment.json"

ADVICE = {
    "Input should be a valid URL, empty host": ". Write it before the path; a socket of Postgres as"
    " %2Fcloudsql%2FPROJECT%3AREGION%3AINSTANCE",
    "url_parsing": ". Put no quotes around it. In a password write / as %2F, ? as %3F, # as %23,"
    " @ as %40, : as %3A and , as %2C",
    "time_delta_parsing": ". Write PT30M for 30 minutes, or P14D for 14 days",
}

# With 0, each login or link would end at once. With more than 100 years, a date could pass the year
# 9999, where Python's dates end.
Duration = Annotated[timedelta, Field(ge=timedelta(seconds=1), le=timedelta(days=36_500))]
Seconds = Annotated[float, Field(gt=0, le=86_400)]  # a day: "inf" is a number too
Count = Annotated[int, Field(gt=0, le=100_000_000)]


class EnvironmentIncomplete(SystemExit):
    """Exit code 1, and a message that names each variable that is missing or wrong."""


def read[SettingsT: BaseSettings](settings: type[SettingsT], **given: Any) -> SettingsT:
    """`given` replaces variables, and an empty variable counts as missing. Raises
    EnvironmentIncomplete, which shows no values: they may be secrets."""
    if not os.environ.get("DATABASE_URL"):
        _borrow_from_make_dev()
    prefix = settings.model_config.get("env_prefix", "")
    try:
        return settings(_env_ignore_empty=True, **given)
    except ValidationError as error:
        wrong = [
            f"  {_place(prefix, problem['loc'])}: {problem['msg']}"
            f"{ADVICE.get(problem['msg'], ADVICE.get(problem['type'], ''))}"
            for problem in error.errors(include_input=False)
            # This default depends on another variable, which is wrong and named already.
            if problem["type"] != "default_factory_not_called"
        ]
        advice = "See deploy/env.example."
        if not os.environ.get("DATABASE_URL"):
            advice += " On a laptop, leave `make dev` running in another shell, and try again."
        lines = ["Missing or wrong in the environment:", *wrong, advice]
        raise EnvironmentIncomplete("\n".join(lines)) from None


def _borrow_from_make_dev() -> None:
    try:
        # Each `make dev` holds this shared lock while it runs. The lock ends with its process.
        with SHARED.with_suffix(".lock").open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return
    except PermissionError as error:
        raise EnvironmentIncomplete(f"{error}\nRun this as the user of `make dev`.") from None
    except BlockingIOError:
        for name, value in json.loads(SHARED.read_text(encoding="utf-8")).items():
            if value is None:  # a variable of libpq, which leads to another server
                os.environ.pop(name, None)
            else:
                os.environ[name] = os.environ.get(name) or value


def _place(prefix: str, location: tuple[int | str, ...]) -> str:
    """The variable's name, and which items of a list are wrong, counted from 1."""
    name = "_".join(part for part in location if isinstance(part, str))
    items = [f": item {part + 1}" for part in location if isinstance(part, int)]
    return "".join([(prefix + name).upper(), *items])
