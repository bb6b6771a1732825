# Rung's file: advancing to another stage may change it.
"""`make module-drop`: write the migration that drops a module's old tables after its move."""

import importlib
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from alembic import command
from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.config import Config
from alembic.operations.ops import DropTableOp, ExecuteSQLOp, MigrateOperation, MigrationScript
from sqlalchemy import Enum, Table, text
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.infra.module_databases.__main__ import tables_of
from app.infra.module_databases.comparison import table_of
from app.infra.tables import Base
from dev.module_databases import own
from dev.programs import run_module

NEXT = (
    "Read it. Release it only after the move's step `own`, because it ends the way back. Then run"
    " `own` again."
)

# asyncpg's, because others double a percent sign.
DIALECT = dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's own
NAMES = DIALECT.identifier_preparer

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

# The views and functions that need these tables, also through another one, and the tables'
# triggers: Alembic knows none of them. Postgres knows a function that takes a row of a table or has
# a body in BEGIN ATOMIC. Each has the statement that drops it and the one that creates it. Triggers
# come last, because a view may have some.
FURTHER = r"""
    WITH RECURSIVE ours AS (
        SELECT 'pg_class'::regclass::oid AS kind, to_regclass(name)::oid AS oid, 0 AS distance
        FROM unnest(CAST(:tables AS text[])) AS name
        UNION
        SELECT CASE WHEN ev_class IS NULL THEN classid ELSE 'pg_class'::regclass END,
            coalesce(ev_class, objid), distance + 1
        FROM ours
        LEFT JOIN pg_class ON kind = 'pg_class'::regclass AND pg_class.oid = ours.oid
        JOIN pg_depend ON refclassid = kind AND refobjid = ours.oid
            OR refclassid = 'pg_type'::regclass AND refobjid = reltype
        LEFT JOIN pg_rewrite ON classid = 'pg_rewrite'::regclass AND objid = pg_rewrite.oid
        WHERE coalesce(ev_class, objid) <> ours.oid
        AND (ev_class IS NOT NULL OR classid = 'pg_proc'::regclass)
        AND distance < 99 -- functions may call each other
    ), further AS (
        SELECT kind, oid, max(distance) AS distance FROM ours GROUP BY kind, oid
    )
    SELECT 'DROP ' || name, concat('CREATE ', name, options, ' AS', chr(10),
        pg_get_viewdef(oid, 80)), distance
    FROM further JOIN pg_class USING (oid), LATERAL (
        SELECT concat(CASE relkind WHEN 'm' THEN 'MATERIALIZED ' END, 'VIEW ', oid::regclass),
            ' WITH (' || array_to_string(reloptions, ', ') || ')'
    ) AS shown (name, options) WHERE kind = 'pg_class'::regclass AND relkind IN ('v', 'm')
    UNION ALL SELECT 'DROP FUNCTION ' || oid::regprocedure, rtrim(pg_get_functiondef(oid), chr(10)),
        distance FROM further JOIN pg_proc USING (oid)
    WHERE kind = 'pg_proc'::regclass AND prokind IN ('f', 'w')
    UNION ALL SELECT NULL, regexp_replace(pg_get_triggerdef(pg_trigger.oid),
        ' (NOT DEFERRABLE|DEFERRABLE|FOR EACH|EXECUTE)', chr(10) || '\1', 'g'
    ), NULL FROM pg_trigger JOIN further ON tgrelid = further.oid AND kind = 'pg_class'::regclass
    WHERE NOT tgisinternal AND tgname <> 'move_fence'
    ORDER BY 3 NULLS LAST, 2
"""


class Lines(ExecuteSQLOp):
    """SQL that the migration shows as it is written."""


@renderers.dispatch_for(Lines)
def as_lines(_context: AutogenContext, one: Lines) -> str:
    sql = str(one.sqltext)
    # Alembic takes `:word` for a parameter, as in '[[:digit:]]', and `\:` for a colon.
    if re.search(r"(?<!:):\w|\\:", sql):
        sql = sql.replace(":", r"\:")
    sql = re.sub(r'"(?=""|\Z)', r"\"", sql.replace("\\", "\\\\"))
    return f'op.execute("""{sql}""")'


def main() -> None:
    module = sys.argv[1]
    if module not in own.with_history():
        known = ", ".join(own.with_history()) or "none"
        sys.exit(f"{module!r} has no own history of migrations. Modules that have one: {known}.")
    run_module("dev.alembic", "upgrade", "head")
    importlib.import_module("app.main")  # it imports the models of every module
    tables = [table for table in Base.metadata.sorted_tables if table in tables_of(module)]
    for table in tables:
        Base.metadata.remove(table)
    written: list[MigrationScript] = []

    def keep_to_the_module(context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
        [script] = scripts
        if (upgrade := script.upgrade_ops) and (downgrade := script.downgrade_ops):
            names = [NAMES.format_table(table) for table in tables]
            further = context.connection.execute(text(FURTHER), {"tables": names}).all()
            upgrade.ops = drops(module, tables, upgrade.ops, [one[0] for one in further if one[0]])
            downgrade.ops = changes_of(tables, downgrade.ops)
            written.extend(scripts if downgrade.ops else ())
            downgrade.ops += [Lines(one[1]) for one in further]
        scripts[:] = written

    command.revision(
        Config(toml_file="pyproject.toml", attributes={"dropped": tables}),
        f"drop the old tables of {module}",
        autogenerate=True,
        process_revision_directives=keep_to_the_module,
    )
    print(NEXT if written else f"The common database has no table of {module}: nothing to drop.")


def changes_of(tables: Sequence[Table], ops: Sequence[MigrateOperation]) -> list[MigrateOperation]:
    """Sorted: a table comes after those that its foreign keys name."""
    return [one for table in tables for one in ops if table_of(one) == (table.schema, table.name)]


def drops(
    module: str, tables: Sequence[Table], ops: Sequence[MigrateOperation], further: Sequence[str]
) -> list[MigrateOperation]:
    """Indexes and triggers go with their table. Views, functions and enums do not."""
    names = [NAMES.format_table(table) for table in tables]
    rows = "\n        OR ".join(f"EXISTS (SELECT FROM {name})" for name in names)
    shown = ",'\n            ' ".join(name.replace("'", "''").replace("%", "%%") for name in names)
    found: list[MigrateOperation] = [
        Lines(GUARD.format(module=module, has_rows=rows, tables=shown))
    ]
    for drop in reversed(further):
        kind = "function" if drop.startswith("DROP FUNCTION") else "view"
        found += [ExecuteSQLOp(ACCEPTED.format(kind)), Lines(drop)]
    for one in reversed(changes_of(tables, ops)):
        if isinstance(one, DropTableOp):
            found += [ExecuteSQLOp(ACCEPTED.format("table")), one]
    only_theirs = enums_of(tables) - enums_of(Base.metadata.tables.values())
    for name in sorted(only_theirs):
        drop = f"DROP TYPE IF EXISTS {name}"
        found += [ExecuteSQLOp(ACCEPTED.format("type")), ExecuteSQLOp(drop)]
    return found


def enums_of(tables: Iterable[Table]) -> set[str]:
    columns = (column for table in tables for column in table.columns)
    types = (getattr(column.type, "item_type", column.type) for column in columns)  # of an array
    enums = (one for one in types if isinstance(one, Enum) and one.native_enum and one.name)
    return {one.compile(DIALECT) for one in enums}


if __name__ == "__main__":
    main()
