# Rung's file: advancing to another stage may change it.
"""Reads settings from the environment, and names each wrong or missing variable."""

from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings


class EnvironmentIncomplete(SystemExit):
    """Stops the process with exit code 1 and a message that names each that is missing or wrong."""


def read[SettingsT: BaseSettings](settings: type[SettingsT], **given: Any) -> SettingsT:
    """What is `given` is not looked for. Raises EnvironmentIncomplete; the values themselves are
    never shown, they may be secrets."""
    prefix = settings.model_config.get("env_prefix", "")
    try:
        return settings(**given)
    except ValidationError as error:
        wrong = [
            f"  {_place(prefix, problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_input=False)
            # A default that is made of another variable, which is wrong itself and named already.
            if problem["type"] != "default_factory_not_called"
        ]
        lines = ["Missing or wrong in the environment:", *wrong, "See deploy/env.example."]
        raise EnvironmentIncomplete("\n".join(lines)) from None


def _place(prefix: str, location: tuple[int | str, ...]) -> str:
    """The variable; one that holds a list is right but for some of its items, counted from 1."""
    name = "_".join(part for part in location if isinstance(part, str))
    items = [f": item {part + 1}" for part in location if isinstance(part, int)]
    return "".join([(prefix + name).upper(), *items])
