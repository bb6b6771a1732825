# Rung's file: advancing to another stage may change it.
"""Modules' databases on the server of `make dev`: a module with a history of migrations has one."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial

from dev import postgres

APP = postgres.REPOSITORY / "app"
MIGRATIONS = postgres.REPOSITORY / "migrations"
VARIABLE = re.compile(r"MODULE_(\w+)_DATABASE_URL")
SETTING = re.compile(r"MODULE_\w+_DATABASE_\w+")


def variable(module: str) -> str:
    return f"MODULE_{module.upper()}_DATABASE_URL"


def with_history() -> list[str]:
    """The modules with migrations for their own database, in migrations/NAME."""
    names = {migration.parent.name for migration in MIGRATIONS.glob("*/*.py")}
    return sorted(name for name in names if name != "versions" and (APP / name).is_dir())


def history(module: str) -> dict[str, str]:
    """Alembic's options. Spaces separate paths by default, and a percent sign is a reference."""
    folder = str(MIGRATIONS / module).replace("%", "%%")
    return {"version_locations": folder, "path_separator": "newline"}


def urls(environment: Mapping[str, str]) -> dict[str, str]:
    """The URL of each module's own database, by module."""
    found = ((VARIABLE.fullmatch(name), url) for name, url in environment.items())
    return dict(sorted((name[1].lower(), url) for name, url in found if name and url))


def databases(environment: Mapping[str, str]) -> dict[str, list[str]]:
    return {
        url: ["app.infra.module_databases", module] for module, url in urls(environment).items()
    }


@contextmanager
def beside(module: str, environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Beside a server that this repository does not run, the module uses the common database."""
    server = postgres.own_server(environment["DATABASE_URL"])
    name = f"{postgres.DATABASE}_{module}"
    yield {variable(module): postgres.database_on(server, name)} if server else {}


type Started = AbstractContextManager[dict[str, str]]

SERVICES: dict[str, Callable[[Mapping[str, str]], Started]] = {
    variable(module): partial(beside, module) for module in with_history()
}
