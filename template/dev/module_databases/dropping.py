# Rung's file: advancing to another stage may change it.
"""`make module-drop`: write the migration that drops a module's old tables after its move."""

import importlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from alembic import command
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.operations.ops import (
    DropTableOp,
    ExecuteSQLOp,
    MigrateOperation,
    MigrationScript,
)
from sqlalchemy import Enum, Table

from app.infra.module_databases.__main__ import tables_of
from app.infra.tables import Base
from dev import migrate
from dev.module_databases import own

NEXT = (
    "Read it. Release it after the move's step `own`: before, it would end the way back. Then run"
    " `own` again."
)

ACCEPTED = "-- squawk-ignore ban-drop-{}"  # for the lint

# If the tables are still in use, the migration stops here.
GUARD = """
DO $$ BEGIN
    IF ({has_rows})
    AND NOT EXISTS (
        SELECT FROM pg_proc WHERE proname = 'move_{module}_fence' AND prosrc LIKE '%RAISE%'
    ) THEN
        RAISE 'The old tables of {module} have rows, and no move has closed them.'
            ' First finish the move. If the rows may go, as on a laptop: TRUNCATE'
            ' {tables}';
    END IF;
END $$
"""


class Lines(ExecuteSQLOp):
    """SQL that the migration shows as it is written."""


@renderers.dispatch_for(Lines)
def as_lines(_context: AutogenContext, one: Lines) -> str:
    return f'op.execute("""{one.sqltext}""")'


def main() -> None:
    module = sys.argv[1]
    if module not in own.with_history():
        known = ", ".join(own.with_history()) or "no module"
        sys.exit(f"{module!r} has no history of its own. These have: {known}.")
    migrate.run("alembic", "upgrade", "head")
    importlib.import_module("app.main")  # it imports the models of every module
    tables = [table for table in Base.metadata.sorted_tables if table in tables_of(module)]
    for table in tables:
        Base.metadata.remove(table)
    written: list[MigrationScript] = []

    def keep_to_the_module(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
        [script] = scripts
        if (upgrade := script.upgrade_ops) and (downgrade := script.downgrade_ops):
            upgrade.ops = drops(module, tables, upgrade.ops)
            downgrade.ops = of(tables, downgrade.ops)
            written.extend(scripts if downgrade.ops else ())
        scripts[:] = written

    command.revision(
        Config(toml_file="pyproject.toml"),
        f"drop the old tables of {module}",
        autogenerate=True,
        process_revision_directives=keep_to_the_module,
    )
    print(NEXT if written else f"The common database has no table of {module}: nothing to drop.")


def of(tables: Sequence[Table], ops: Sequence[MigrateOperation]) -> list[MigrateOperation]:
    """Sorted: a table comes after those that its foreign keys name."""
    return [one for table in tables for one in ops if getattr(one, "table_name", "") == table.name]


def drops(
    module: str, tables: Sequence[Table], ops: Sequence[MigrateOperation]
) -> list[MigrateOperation]:
    """Indexes go with their table, and enums do not."""
    names = [table.name for table in tables]
    rows = "\n        OR ".join(f'EXISTS (SELECT FROM "{name}")' for name in names)
    guard = GUARD.format(module=module, has_rows=rows, tables=",'\n            ' ".join(names))
    found: list[MigrateOperation] = [Lines(guard)]
    for one in reversed(of(tables, ops)):
        if isinstance(one, DropTableOp):
            found += [ExecuteSQLOp(ACCEPTED.format("table")), one]
    only_theirs = enums_of(tables) - enums_of(Base.metadata.tables.values())
    for name in sorted(only_theirs):
        drop = f'DROP TYPE IF EXISTS "{name}"'
        found += [ExecuteSQLOp(ACCEPTED.format("type")), ExecuteSQLOp(drop)]
    return found


def enums_of(tables: Iterable[Table]) -> set[str]:
    columns = (column for table in tables for column in table.columns)
    types = (getattr(column.type, "item_type", column.type) for column in columns)  # of an array
    return {one.name for one in types if isinstance(one, Enum) and one.native_enum and one.name}


if __name__ == "__main__":
    main()
