# Rung's file: advancing to another stage may change it.
"""elsewhere(write, other): the only way from a module's transaction into another module's."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.module_databases.sessions import Held, ModuleSessions, TwoDatabases


@asynccontextmanager
async def elsewhere(write: AsyncSession, other: ModuleSessions) -> AsyncGenerator[AsyncSession]:
    """Ends the part of `write` so far, then runs the block in a transaction of `other`. In two
    databases neither part can roll the other back. So first note your request in your own row:
    after a crash in between, a task can find that row and continue.

    In one database this is a savepoint. In two it is COMMIT here, then a transaction there.
    """
    held: Held | None = write.info.get(Held)
    if held is None:
        raise TwoDatabases("elsewhere() needs the session of a module: module_sessions(…).write.")
    if held.is_elsewhere or write.in_nested_transaction():
        raise TwoDatabases(
            "elsewhere() cannot run inside a savepoint or another elsewhere(): the outer one could"
            " still be rolled back, but this one could not. End the outer one first."
        )
    database = other.database(held.app)
    if database is held.database:
        write.info[Held] = held._replace(is_elsewhere=True)
        try:
            async with write.begin_nested():
                yield write
        finally:
            write.info[Held] = held
        return
    _refuse_open(held, write)
    await write.commit()
    async with database.transaction() as theirs:
        theirs.info[Held] = Held(held.app, database, held.beside, is_elsewhere=True)
        yield theirs
        if write.in_transaction():
            raise TwoDatabases(
                "A session was used inside of its elsewhere(): both transactions were rolled back."
                " Use what elsewhere() gives, and your own session after the block."
            )


def _refuse_open(held: Held, write: AsyncSession) -> None:
    if any(one.in_transaction() for one in held.beside if one is not write):
        raise TwoDatabases(
            "elsewhere() cannot run while another session of this request has a transaction, which"
            " could still be rolled back. Let the request write through one session."
        )
