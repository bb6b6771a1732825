# Rung's file: advancing to another stage may change it.
"""python -m app.infra.module_databases billing upgrade head: Alembic on a module's database."""

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from alembic.config import CommandLine, Config
from alembic.script import ScriptDirectory
from sqlalchemy import Table

from app.infra.module_databases import settings
from app.infra.tables import Base

PROGRAM = "python -m app.infra.module_databases"
USAGE = (
    f"Use: {PROGRAM} MODULE COMMAND, with any command of Alembic:"
    " upgrade head, current, revision --autogenerate -m ..."
)


def main(arguments: Sequence[str]) -> None:
    if len(arguments) < 2:
        sys.exit(USAGE)
    module, *command = arguments
    importlib.import_module("app.main")  # it imports the models of every module
    tables = tables_of(module)
    if not tables:
        sys.exit(f"No table belongs to the module {module!r}: app/{module}/ has no models.")
    if command[0] != "merge":  # it asks no database, and `make dev` does not start with two heads
        own = settings.read(module)
        # migrations/env.py is the team's, and works on these.
        os.environ["DATABASE_URL"] = str(own.url)
        os.environ["DATABASE_READ_URL"] = str(own.read_url)
        os.environ["DATABASE_DIRECT_URL"] = str(own.direct_url)
        os.environ["DATABASE_POOLED"] = str(own.pooled)
    for table in set(Base.metadata.tables.values()) - tables:
        Base.metadata.remove(table)
    alembic = CommandLine(prog=f"{PROGRAM} {module}")
    options = alembic.parser.parse_args(command)
    program = {"program": f"sh dev/uv run {PROGRAM} {module}"}  # for the errors of env.py
    config = Config(toml_file="pyproject.toml", cmd_opts=options, attributes=program)
    keep_to_history(module, config, begins=command[0] == "revision")
    alembic.run_cmd(config, options)


def tables_of(module: str) -> set[Table]:
    """The tables of the module's models, of its classes or without one."""
    found = {table for table, owner in without_class().items() if owner == module}
    for mapper in Base.registry.mappers:
        if mapper.class_.__module__.startswith(f"app.{module}."):
            between = (relationship.secondary for relationship in mapper.relationships)
            found.update(one for one in (*mapper.tables, *between) if isinstance(one, Table))
    return found


def without_class() -> dict[Table, str]:
    """Each table without a class, and the module that makes it. Others may import it."""
    of_classes = {table for mapper in Base.registry.mappers for table in mapper.tables}
    ours = set(Base.metadata.tables.values()) - of_classes
    made: dict[Table, str] = {}
    imported: dict[Table, str] = {}
    for name, code in sorted(sys.modules.items()):
        if name.startswith("app.") and not name.startswith("app.infra."):
            for key, table in vars(code).items():
                if isinstance(table, Table) and table in ours:
                    found = made if _makes(code, key) else imported
                    found.setdefault(table, name.split(".")[1])
    return imported | made


def _makes(code: ModuleType, name: str) -> bool:
    """Whether it has `name = Table(…)`, or a call of another function."""
    for node in ast.walk(ast.parse(inspect.getsource(code))):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(one, ast.Name) and one.id == name for one in targets):
                return True
    return False


def keep_to_history(module: str, config: Config, *, begins: bool = False) -> None:
    """Lets Alembic use the module's own migrations: migrations/billing, not migrations/versions."""
    folder = Path(ScriptDirectory.from_config(config).dir, module)
    if begins:
        folder.mkdir(exist_ok=True)
    elif not folder.exists():
        sys.exit(
            f"{folder} does not exist: the tables of {module} have no migration there yet."
            f" Write it: {PROGRAM} {module} revision --autogenerate -m 'the {module}'"
        )
    # The path may contain spaces, which separate paths by default, and percent signs.
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))


if __name__ == "__main__":
    main(sys.argv[1:])
