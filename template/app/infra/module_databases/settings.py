# Rung's file: advancing to another stage may change it.
"""MODULE_BILLING_DATABASE_URL and the rest: the settings of a module's own database."""

import os
import re
from collections.abc import Collection, Iterator

from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.environment import EnvironmentIncomplete

_VARIABLE = re.compile(r"MODULE_(\w+?)_DATABASE_(\w+)")

SETTINGS = [*(name.upper() for name in DatabaseSettings.model_fields), "FOLLOW"]


def prefix_of(module: str) -> str:
    return f"MODULE_{module.upper()}_DATABASE_"


def read(module: str) -> DatabaseSettings:
    """The settings of DATABASE_…, each under the module's prefix."""
    return read_as(DatabaseSettings, module)


def read_as[S: BaseSettings](kind: type[S], module: str, part: str = "") -> S:
    config = SettingsConfigDict(env_prefix=f"{prefix_of(module)}{part}")
    return environment.read(type(kind.__name__, (kind,), {"model_config": config}))


def follows(module: str) -> bool:
    """Whether this process asks where the module lives, because its tables move."""

    class FollowSettings(BaseSettings):
        follow: bool = False

    return read_as(FollowSettings, module).follow


def read_all(
    modules: Collection[str], further: Collection[str] = ()
) -> dict[str, DatabaseSettings]:
    """The settings of each own database. Another capability reads the `further` ones.
    Raises EnvironmentIncomplete."""
    for module, variable, setting in given():
        if module not in modules:
            names = ", ".join(sorted(modules)) or "none"
            problem = f'no code calls module_sessions("{module}"). Known: {names}.'
            raise EnvironmentIncomplete(f"Wrong in the environment: {variable}: {problem}")
        if setting not in (known := [*SETTINGS, *further]):
            problem = f"no such setting. After {prefix_of(module)} comes: {', '.join(known)}."
            raise EnvironmentIncomplete(f"Wrong in the environment: {variable}: {problem}")
    return {module: read(module) for module in with_own_database()}


def with_own_database() -> list[str]:
    return sorted({module for module, _, _ in given()})


def given() -> Iterator[tuple[str, str, str]]:
    """The module, the variable, and the setting in its name. An empty one is not given."""
    for variable, value in sorted(os.environ.items()):
        if value and (found := _VARIABLE.fullmatch(variable)):
            yield found[1].lower(), variable, found[2]
