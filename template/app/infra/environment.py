# Rung's file: advancing to another stage may change it.
"""Reads settings from environment variables, or stops the process with a message."""

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings


class EnvironmentIncomplete(SystemExit):
    """Exit code 1, and a message that names each variable that is missing or wrong."""


def read[SettingsT: BaseSettings](settings: type[SettingsT], **given: Any) -> SettingsT:
    """`given` replaces variables. Raises EnvironmentIncomplete, which shows no values: they may be
    secrets."""
    prefix = settings.model_config.get("env_prefix", "")
    try:
        return settings(**given)
    except ValidationError as error:
        wrong = [
            f"  {_place(prefix, problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False)
            # This default depends on another variable, which is wrong and named already.
            if problem["type"] != "default_factory_not_called"
        ]
        advice = "See deploy/env.example. On a laptop, put `uv run python -m dev` before it."
        lines = ["Missing or wrong in the environment:", *wrong, advice]
        raise EnvironmentIncomplete("\n".join(lines)) from None


def _place(prefix: str, location: tuple[int | str, ...]) -> str:
    """The variable's name, and which items of a list are wrong, counted from 1."""
    name = "_".join(part for part in location if isinstance(part, str))
    items = [f": item {part + 1}" for part in location if isinstance(part, int)]
    return "".join([(prefix + name).upper(), *items])
