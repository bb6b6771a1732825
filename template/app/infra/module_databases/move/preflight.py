# Rung's file: advancing to another stage may change it.
"""The reasons that prevent a move, one line each."""

from collections.abc import AsyncGenerator

import asyncpg

from app.infra.module_databases.move import sequences
from app.infra.module_databases.move.sides import Move, Side, connected

OLDEST = 17  # its pg_logical_emit_message() flushes

SAME = """
    SELECT (system_identifier, pg_postmaster_start_time(), current_database())::text
    FROM pg_control_system()
"""
APP = """
    SELECT rolname, rolsuper, current_setting('default_transaction_isolation')
    FROM pg_roles WHERE rolname = current_user
"""
SHAPE = """
    SELECT relkind::text, relreplident::text AS identity,
        EXISTS (SELECT FROM pg_index WHERE indrelid = pg_class.oid AND indisprimary) AS has_key,
        ARRAY(
            SELECT concat(attname, ' ', format_type(atttypid, atttypmod),
                CASE WHEN attnotnull THEN ' NOT NULL' END,
                ' DEFAULT ' || pg_get_expr(adbin, adrelid))
            FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
            WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
        ) AS columns
    FROM pg_class WHERE oid = to_regclass($1)
"""
ACROSS = """
    SELECT conname, conrelid::regclass::text AS here, confrelid::regclass::text AS there
    FROM pg_constraint
    WHERE contype = 'f'
    AND (conrelid = ANY($1::text[]::regclass[])) <> (confrelid = ANY($1::text[]::regclass[]))
"""
ANY_ROW = "SELECT true FROM {table} LIMIT 1"
FREE = """
    SELECT current_setting('max_replication_slots')::int
            - (SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $1),
        current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication)
"""


async def complaints(move: Move, *, is_copied: bool = False) -> list[str]:
    """After the copy, only the reasons that a person may have caused since."""
    if await move.old.value(SAME) == await move.new.value(SAME):
        return ["MOVE_FROM_URL and MOVE_TO_URL lead to one database: give the module its own."]
    of_side = _of_app if is_copied else _of_server
    found = [line for side in (move.old, move.new) async for line in of_side(side, move)]
    if found:
        return found
    found = [line async for line in _of_tables(move, is_copied)]
    if any("does not exist" in line for line in found):
        return found
    theirs = await sequences.of(move.new, move.tables)
    found += [
        f"The sequence {name} does not exist in the new database: run the migrations there."
        for name in (await sequences.of(move.old, move.tables)).keys() - theirs
    ]
    for row in await move.old.rows(ACROSS, move.tables):
        found.append(
            f"{row['here']}: the foreign key {row['conname']} leads to {row['there']}, across the"
            " border. Keep the column, and drop the key in a migration."
        )
    return found


async def _of_server(side: Side, move: Move) -> AsyncGenerator[str]:
    version = int(await side.value("SHOW server_version_num")) // 10000
    if version < OLDEST:
        yield f"{side.name} is Postgres {version}: the move needs {OLDEST} or newer on both sides."
        return
    async for line in _of_app(side, move):
        yield line
    if await side.value("SHOW wal_level") != "logical":
        yield f"{side.name}: wal_level is not logical. Set it, and restart the server."
    # Each table is copied through a slot and a sender more, some at the same time.
    copied_at_once = int(await move.new.value("SHOW max_sync_workers_per_subscription"))
    needed = 1 + min(len(move.tables), copied_at_once) if side is move.old else 1
    [free] = await side.rows(FREE, move.name)
    for setting, left in zip(("max_replication_slots", "max_wal_senders"), free, strict=True):
        if left < needed:
            yield (
                f"{side.name}: {max(left, 0)} free of {setting}, and the move needs {needed}."
                " Raise it, and restart the server."
            )
    if await side.value("SHOW max_slot_wal_keep_size") == "-1":
        yield (
            f"{side.name}: max_slot_wal_keep_size is unset, so a slot that nobody reads fills the"
            " disk. Set it to half of the free space, and reload."
        )


async def _of_app(side: Side, move: Move) -> AsyncGenerator[str]:
    try:
        async with connected(side.app_url) as app:
            [(role, is_superuser, isolation)] = await app.fetch(APP)
            leads_elsewhere = await app.fetchval(SAME) != await side.value(SAME)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        yield f"{side.name}: the app cannot connect: {error or 'no answer in time'}"
        return
    if is_superuser:
        yield (
            f"{side.name}: the app's role {role} is a superuser, which no fence holds for certain."
            " Give the app a role without that right."
        )
    if isolation != "read committed":
        yield (
            f"{side.name}: the app's transactions are {isolation}, as its URL, its role or the"
            " database says. One that waits for the cut would not see it, and fail. Set"
            " default_transaction_isolation to read committed until the move is finished."
        )
    if leads_elsewhere:
        yield f"{side.name}: the app's URL leads to another database than the move's."
    if side.heads is not None:
        has_run = await side.value("SELECT to_regclass('alembic_version')")
        rows = await side.rows("SELECT version_num FROM alembic_version") if has_run else []
        if {row["version_num"] for row in rows} != side.heads:
            yield (
                f"{side.name}: migrations are pending. Run them, and freeze those of {move.module}"
                " until the move is finished."
            )


async def _of_tables(move: Move, is_copied: bool) -> AsyncGenerator[str]:
    for table in move.tables:
        shapes = [await side.rows(SHAPE, table) for side in (move.old, move.new)]
        missing = [
            side.name for side, shape in zip((move.old, move.new), shapes, strict=True) if not shape
        ]
        if missing:
            yield f"{table} does not exist in {' and '.join(missing)}: run the migrations there."
            continue
        [old], [new] = shapes
        if old["relkind"] != "r" or new["relkind"] != "r":
            yield f"{table} is partitioned or a view, and only plain tables can move."
        elif not (old["has_key"] and new["has_key"]) or old["identity"] == "n":
            yield f"{table} has no primary key, so an UPDATE of a row cannot follow. Add one."
        if difference := sorted(set(old["columns"]) ^ set(new["columns"])):
            where = "old" if difference[0] in old["columns"] else "new"
            yield (
                f"{table} differs: {difference[0]!r} is only in the {where} database. Run the"
                " migrations of both."
            )
        elif not is_copied and await move.new.value(ANY_ROW.format(table=table)):
            yield (
                f"{table} has rows in the new database already. Look whose they are, and empty it."
            )
