# Rung's file: advancing to another stage may change it.
"""The reasons that prevent a move, one line each."""

from collections.abc import AsyncGenerator

from app.infra.failures import POSTGRES_FAILS
from app.infra.module_databases.move import sequences, tables
from app.infra.module_databases.move.sides import Move, Side, connected

OLDEST = 17  # the first whose pg_logical_emit_message() can flush

SAME = """
    SELECT (system_identifier, pg_postmaster_start_time(), current_database())::text
    FROM pg_control_system()
"""
APP = """
    SELECT rolname, rolsuper, current_setting('default_transaction_isolation')
    FROM pg_roles WHERE rolname = current_user
"""
# The app's rights, by the administrator's oids: the app's search_path may find other tables.
RIGHTS = """
    SELECT privilege || ' on ' || name
    FROM unnest($1::text[], $2::oid[]) AS these (name, oid) JOIN pg_class USING (oid),
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'USAGE']) AS privilege
    WHERE CASE
        WHEN (relkind = 'S') <> (privilege = 'USAGE') THEN false
        WHEN relkind = 'S' THEN has_sequence_privilege(oid, 'USAGE, UPDATE')
        WHEN privilege = 'DELETE' THEN has_table_privilege(oid, privilege)
        ELSE has_any_column_privilege(oid, privilege) END
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = oid AND deptype = 'i')  -- of an identity
    UNION SELECT 'USAGE on the schema ' || relnamespace::regnamespace
    FROM unnest($2::oid[]) AS oid JOIN pg_class USING (oid)
    WHERE has_schema_privilege(relnamespace, 'USAGE')
"""
# CASE, because Postgres chooses the order of AND, and to_regclass() fails without USAGE.
OTHERS = """
    SELECT name FROM unnest($1::text[], $2::oid[]) AS these (name, oid) JOIN pg_class USING (oid)
    WHERE CASE WHEN has_schema_privilege(relnamespace, 'USAGE')
        THEN to_regclass(name) IS DISTINCT FROM oid::regclass END
"""
OIDS = "SELECT ARRAY(SELECT to_regclass(name)::oid FROM unnest($1::text[]) AS name)"
FREE = """
    SELECT current_setting('max_replication_slots')::int
            - (SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $1),
        current_setting('max_wal_senders')::int - (SELECT count(*) FROM pg_stat_replication),
        current_setting('max_logical_replication_workers')::int - (
            SELECT count(*) FROM pg_stat_activity
            WHERE backend_type LIKE 'logical replication%worker'
        )
"""


async def complaints(move: Move, *, is_copied: bool = False) -> list[str]:
    """After the copy, only the reasons that a person may have caused since."""
    if await move.old.value(SAME) == await move.new.value(SAME):
        return ["MOVE_FROM_URL and MOVE_TO_URL lead to one database: give the module its own."]
    of_side = _of_app if is_copied else _of_server
    found = [line for side in (move.old, move.new) async for line in of_side(side, move)]
    if found:
        return found
    found = [line async for line in tables.of_tables(move, is_copied)]
    if any("does not exist" in line for line in found):
        return found
    of_database = tables.of_sequences, tables.of_views, tables.of_functions, tables.of_borders
    for each in (*of_database, _of_rights):
        found += [line async for line in each(move)]
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
    # The copy of each table needs one more slot and one more sender, several at the same time.
    copied_at_once = int(await move.new.value("SHOW max_sync_workers_per_subscription"))
    of_copy = min(len(move.tables), copied_at_once)
    sending, applying = (1 + of_copy, 1) if side is move.old else (1, 2)
    needs = {
        "max_replication_slots": sending,
        "max_wal_senders": sending,
        "max_logical_replication_workers": applying,
    }
    [free] = await side.rows(FREE, move.name)
    for (setting, needed), left in zip(needs.items(), free, strict=True):
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
    except POSTGRES_FAILS as error:
        yield f"{side.name}: the app cannot connect: {error or 'no answer in time'}"
        return
    if is_superuser:
        yield (
            f"{side.name}: the app's role {role} is a superuser: a fence might not stop it."
            " Give the app a role without that right."
        )
    if isolation != "read committed":
        yield (
            f"{side.name}: the app's transactions are {isolation}, as its URL, its role or the"
            " database says. A transaction that waits for the cut would not see it, and would fail."
            " Set default_transaction_isolation to read committed until the move is finished."
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


async def _of_rights(move: Move) -> AsyncGenerator[str]:
    rights = []
    for side in (move.old, move.new):
        found = await sequences.of(side, move.tables)
        names = (*move.tables, *(name for name, one in found.items() if one.has_column))
        these = names, await side.value(OIDS, names)
        async with connected(side.app_url) as app:
            rights.append({row[0] for row in await app.fetch(RIGHTS, *these)})
            for [name] in await app.fetch(OTHERS, *these):
                yield (
                    f"{side.name}: {name} is another table for the app than for the move. Give both"
                    " roles the same search_path."
                )
    old, new = rights
    if lacking := sorted(old - new):
        yield (
            f"The new database: the app's role lacks {', '.join(lacking)}. Grant it what it has in"
            " the old one."
        )
