# Rung's file: advancing to another stage may change it.
"""The fence: a trigger that refuses each write to a module's tables, but not those of replication.

A trigger, because it holds for the tables' owner too, and because its error is one that the app
answers with 503. Readers go on: neither statement conflicts with theirs.
"""

from app.infra.module_databases.move.sides import Move, Side

TRIGGER = "move_fence"

# 55P03 is an error that may pass: app/infra/failures.py.
FUNCTION = """
    CREATE OR REPLACE FUNCTION {name}_fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE 'The tables of {module} take no writes here: they live in their other database'
        USING ERRCODE = '55P03';
    END $$
"""
CLOSED = """
    SELECT count(*) FROM pg_trigger
    WHERE tgname = '{trigger}' AND tgenabled <> 'D' AND tgrelid = ANY($1::text[]::regclass[])
"""


async def close(side: Side, move: Move) -> None:
    """In one transaction, which may be the caller's."""
    async with side.connection.transaction():
        await side.run(FUNCTION.format(name=move.name, module=move.module))
        for table in move.tables:
            await side.run(
                f"CREATE OR REPLACE TRIGGER {TRIGGER}"
                f" BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table}"
                f" FOR EACH STATEMENT EXECUTE FUNCTION {move.name}_fence()"
            )


async def is_closed(side: Side, move: Move) -> bool:
    closed: int = await side.value(CLOSED.format(trigger=TRIGGER), move.tables)
    return closed == len(move.tables)


async def remove(side: Side, move: Move) -> None:
    await side.run(f"DROP FUNCTION IF EXISTS {move.name}_fence() CASCADE")
