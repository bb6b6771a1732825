# Rung's file: advancing to another stage may change it.
"""Lets Alembic ignore the tables of modules that have moved out of the database."""

import sys
from pathlib import Path

from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import MigrateOperation, UpgradeOps
from alembic.runtime.plugins import Plugin
from alembic.util import DispatchPriority, PriorityDispatchResult

from app.infra.module_databases.__main__ import tables_of

# Alembic takes each plugin whose name begins so.
PLUGIN = Plugin("alembic.autogenerate.module_databases")


def leave_out(context: AutogenContext, upgrade: UpgradeOps) -> PriorityDispatchResult:
    """The next migration of another module would create their tables here again."""
    for module in departed(context):
        names = {(table.schema, table.name) for table in tables_of(module)}
        upgrade.ops = [one for one in upgrade.ops if table_of(one) not in names]
        print(
            f"Alembic leaves out {module}: its tables are in its own database. To change them:"
            f' make module-migration NAME={module} m="…"',
            file=sys.stderr,
        )
    return PriorityDispatchResult.CONTINUE


def table_of(operation: MigrateOperation) -> tuple[str | None, str]:
    """The schema and the name of the table that it changes."""
    return getattr(operation, "schema", None), getattr(operation, "table_name", "")


def departed(context: AutogenContext) -> list[str]:
    """The modules with their own history and no table here. Until a migration drops the old tables,
    both histories must lead to the same ones, because either database may be in use."""
    if (script := context.migration_context.script) is None:
        return []
    histories = {file.parent for file in Path(script.dir).glob("*/*.py")}
    others = {one.name for one in histories if str(one) not in script.version_locations}
    found = []
    for module in sorted(others):
        tables = tables_of(module)
        is_there = context.inspector.has_table
        if tables and not any(is_there(table.name, schema=table.schema) for table in tables):
            found.append(module)
    return found


PLUGIN.add_autogenerate_comparator(leave_out, "autogenerate", priority=DispatchPriority.LAST)
