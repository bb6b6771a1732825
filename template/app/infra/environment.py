# Rung's file: advancing to another stage may change it.
from pydantic import ValidationError
from pydantic_settings import BaseSettings


class EnvironmentIncomplete(SystemExit):
    """Stops the process with exit code 1 and a message that names every wrong variable."""


def read[SettingsT: BaseSettings](settings: type[SettingsT]) -> SettingsT:
    """Raises EnvironmentIncomplete; the values themselves are never shown, they may be secrets."""
    prefix = settings.model_config.get("env_prefix", "")
    try:
        return settings()
    except ValidationError as error:
        wrong = [
            f"  {(prefix + '_'.join(map(str, problem['loc']))).upper()}: {problem['msg']}"
            for problem in error.errors(include_input=False)
            # A default that is made of another variable, which is wrong itself and named already.
            if problem["type"] != "default_factory_not_called"
        ]
        message = "\n".join(["The environment is not complete:", *wrong, "See deploy/env.example."])
        raise EnvironmentIncomplete(message) from None
