# Rung's file: advancing to another stage may change it.
"""The reasons in a module's tables that prevent a move, one line each."""

from collections.abc import AsyncGenerator

from app.infra.module_databases.move import sequences
from app.infra.module_databases.move.shape import MENTIONS, OBSTACLES, PARTS, VIEWS
from app.infra.module_databases.move.sides import Move

KIND = "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)"
LOCALE = """
    SELECT concat_ws(' ', pg_encoding_to_char(encoding), CASE
        WHEN datlocprovider = 'b' OR datlocprovider = 'c' AND datcollate ~* '^(C|POSIX)($|[.])'
        THEN 'sorted by bytes' WHEN datlocprovider = 'i' THEN 'icu ' || datlocale
        ELSE 'libc ' || replace(lower(datcollate), '-', '') END)
    FROM pg_database WHERE datname = current_database()
"""
ACROSS = """
    SELECT conname, conrelid::regclass::text AS here, confrelid::regclass::text AS there
    FROM pg_constraint
    WHERE contype = 'f'
    AND (conrelid = ANY($1::text[]::regclass[])) <> (confrelid = ANY($1::text[]::regclass[]))
"""
SHOWN = 300  # a function may be long

BODIES = """
    SELECT name, md5(coalesce(pg_get_function_sqlbody(oid), prosrc))
    FROM unnest($1::text[]) AS name JOIN pg_proc ON oid = to_regprocedure(name)
"""
PRESENT = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NOT NULL"
ANY_ROW = "SELECT true FROM {table} LIMIT 1"


async def of_tables(move: Move, is_copied: bool) -> AsyncGenerator[str]:
    sides = move.old, move.new
    locales = [await side.value(LOCALE) for side in sides]
    if locales[0] != locales[1]:
        yield (
            f"The old database is {locales[0]}, and the new one {locales[1]}: text may not fit, or"
            " be sorted differently. Create the new one with the same encoding and locale."
        )
    for table in move.tables:
        kinds = {side.name: await side.value(KIND, table) for side in sides}
        missing = [name for name, kind in kinds.items() if kind is None]
        if missing:
            yield f"{table} does not exist in {' and '.join(missing)}: run the migrations there."
            continue
        if set(kinds.values()) != {"r"}:
            yield (
                f"{table} is partitioned or a view, and only plain tables can move. Copy partitions"
                " into a plain table first. Read a view by a query, and delete its model."
            )
            continue
        obstacles = {row[0]: None for side in sides for row in await side.rows(OBSTACLES, table)}
        for obstacle in obstacles:
            yield f"{table} {obstacle}"
        if obstacles:
            continue
        if difference := await _difference(move, table):
            yield difference
        elif not is_copied and await move.new.value(ANY_ROW.format(table=table)):
            yield f"{table} has rows in the new database. Find out whose they are, and empty it."


async def _difference(move: Move, name: str) -> str | None:
    old, new = [{row[0] for row in await side.rows(PARTS, name)} for side in (move.old, move.new)]
    if not (parts := sorted(old ^ new)):
        return None
    where = "old" if parts[0] in old else "new"
    return (
        f"{name} differs: {parts[0][:SHOWN]!r} is only in the {where} database. Run"
        " the migrations of both, or write what they lack."
    )


async def of_sequences(move: Move) -> AsyncGenerator[str]:
    ours, theirs = [await sequences.of(side, move.tables) for side in (move.old, move.new)]
    for name, sequence in ours.items():
        if sequence.has_column and sequence.others:
            yield (
                f"The sequence {name} also gives {', '.join(sequence.others)} its values. After the"
                " cut both databases would give the same ones. Give each side its own sequence."
            )
        elif name not in theirs:
            if sequence.has_column:
                yield (
                    f"The sequence {name} does not exist in the new database: run the migrations"
                    " there, or rename the one that it has."
                )
        elif sequence.rule != theirs[name].rule:
            yield (
                f"The sequence {name} differs: {sequence.rule} in the old database,"
                f" {theirs[name].rule} in the new one. Run ALTER SEQUENCE there."
            )


async def of_views(move: Move) -> AsyncGenerator[str]:
    views = [await side.rows(VIEWS, move.tables) for side in (move.old, move.new)]
    ours, theirs = [set(map(tuple, rows)) for rows in views]
    for name, _ in sorted(ours - theirs):
        yield (
            f"The view {name} reads these tables, and the new database has no such view. Create"
            " it in a migration there, or drop it here."
        )
    for name, _ in sorted(ours & theirs):
        if difference := await _difference(move, name):
            yield f"The view {difference}"


async def of_functions(move: Move) -> AsyncGenerator[str]:
    """Postgres knows what a view reads, but not what the text of a function names."""
    views = [name for name, _ in await move.old.rows(VIEWS, move.tables)]
    mentions = await move.old.rows(MENTIONS, move.tables, views)
    bodies = dict(await move.new.rows(BODIES, list({row["function"] for row in mentions})))
    rows = await move.new.rows(PRESENT, list({row["table"] for row in mentions}))
    present = {row["name"] for row in rows}
    for function, body, table, moves, triggers in mentions:
        if moves and triggers:
            yield (
                f"{', '.join(triggers)} uses {table} by the function {function}, across the border."
                " Do this in the code instead, and drop the trigger in a migration."
            )
        elif moves and function not in bodies:
            yield (
                f"The function {function} uses {table}, and the new database has no such function."
                " Create it in a migration there, or drop it here."
            )
        elif not moves and table not in present and bodies.get(function) == body:
            yield (
                f"The function {function} uses {table}, which does not move, so in the new database"
                " it would fail. Change or drop the function there. If a table that moves uses it,"
                " for example in a trigger, do so in both databases, and drop the trigger too."
            )


async def of_borders(move: Move) -> AsyncGenerator[str]:
    for side in (move.old, move.new):
        for row in await side.rows(ACROSS, move.tables):
            yield (
                f"{row['here']}: the foreign key {row['conname']} leads to {row['there']}, across"
                " the border. Keep the column, and drop the key in a migration."
            )
