# Rung's file: advancing to another stage may change it.
"""The fence: a trigger that refuses each write to a module's tables, but not those of replication.

A trigger, because it holds for the tables' owner too, and because its error is one that the app
answers with 503. It can be opened without a lock on any table: only its function changes.
"""

from app.infra.module_databases.home import LOCK
from app.infra.module_databases.move.sides import Move, Side, patiently

TRIGGER = "move_fence"

FUNCTION = """
    CREATE OR REPLACE FUNCTION {name}_fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        {does}; RETURN NULL;
    END $$
"""
# 55P03 is an error that may pass: app/infra/failures.py.
REFUSE = """
    RAISE 'The tables of {module} take no writes here: they live in their other database'
    USING ERRCODE = '55P03'
"""
CLOSED = """
    SELECT (SELECT count(*) FROM pg_trigger WHERE tgname = '{trigger}' AND tgrelid IN (
        SELECT to_regclass(name) FROM unnest($2::text[]) AS name
    )) = cardinality($2) AND EXISTS (
        SELECT FROM pg_proc WHERE oid = to_regproc($1) AND prosrc LIKE '%RAISE%'
    )
"""


async def hold(side: Side, move: Move) -> None:
    """Waits for open transactions of copies that follow the move. Until this transaction ends,
    their new ones wait."""
    await side.run(LOCK.format("", move.module))


async def close(side: Side, move: Move) -> None:
    """Runs in one transaction, which may be the caller's."""
    async with side.connection.transaction():
        refuse = REFUSE.format(module=move.module)
        await side.run(FUNCTION.format(name=move.name, does=refuse))
        for table in move.tables:
            await side.run(
                f"CREATE OR REPLACE TRIGGER {TRIGGER}"
                f" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {move.name}_fence()"
            )


async def open_again(side: Side, move: Move) -> None:
    await side.run(FUNCTION.format(name=move.name, does="NULL"))


async def is_closed(side: Side, move: Move) -> bool:
    query = CLOSED.format(trigger=TRIGGER)
    return await side.value(query, f"{move.name}_fence", move.tables) is True


async def remove(side: Side, move: Move) -> None:
    """Also removes the triggers, which locks their tables for a moment."""
    drop = f"DROP FUNCTION IF EXISTS {move.name}_fence() CASCADE"
    await patiently(side, lambda: side.run(drop))
