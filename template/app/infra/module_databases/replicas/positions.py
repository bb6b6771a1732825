# Rung's file: advancing to another stage may change it.
"""Notes positions in a module's own database. The login sessions are rows of the common one."""

from collections.abc import Awaitable, Callable
from functools import partial

import asyncpg
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.orm import Session

from app.infra.database import Database
from app.infra.own_writes.client import Client, SessionPositions
from app.infra.own_writes.commits import (
    PositionedSession,
    note_positions,
    position_now,
    store_beside_rows,
    store_in_rows,
)
from app.infra.own_writes.log_position import Position, encoded

# The server of the rows cannot compute this position. Concurrent notes of a session come in any
# order, so the greater position stays, but NOT_KNOWN is replaced.
NOTE = """
    WITH quick AS (
        SELECT set_config('synchronous_commit', 'off', true),
            set_config('lock_timeout', '1s', true)
    )
    UPDATE login_sessions SET positions = positions || jsonb_build_object($2::text, greatest(
        nullif(positions ->> $2::text, '100000000.0000000000000000') COLLATE "C", $3::text
    ))
    FROM quick WHERE token_hash = ANY($1::bytea[])
"""


def note_positions_of(app: FastAPI, module: str, database: Database) -> None:
    """Notes the position of every later commit in a module's own database."""
    note_positions(app)
    app.state.positions.modules.append(module)
    app.state.positions.note_started = _note_started
    note = partial(_note_commit, module, AsyncEngine(app.state.database.writing_engine))
    noting: type[Session] = type("Noting", (PositionedSession,), {"note_of": lambda *_: note})
    database.session_class = noting


async def _note_commit(
    module: str, engine: AsyncEngine, client: Client, connection: asyncpg.Connection
) -> None:
    position = await position_now(connection)
    client.at(module).wrote(position)
    if client.positions and client.noted_sessions:
        run = partial(_run_pooled, engine)
        await _store(run, client.positions, client.noted_sessions, position, module)


async def _note_started(client: Client, connection: asyncpg.Connection) -> None:
    for one in client.at_modules:
        if client.positions and one.position:
            # On this connection, because waiting for a second one of the same pool could deadlock.
            run = connection.fetchval
            await _store(run, client.positions, client.started, one.position, one.database)


async def _run_pooled(engine: AsyncEngine, statement: str, *arguments: object) -> None:
    async with engine.begin() as connection:
        await connection.exec_driver_sql(statement, arguments)


async def _store(
    run: Callable[..., Awaitable[object]],
    positions: SessionPositions,
    sessions: list[bytes],
    position: Position,
    module: str,
) -> None:
    if positions.in_rows:
        noted = sessions, module, encoded(position).decode()
        await store_in_rows(run, positions, NOTE, *noted)
    await store_beside_rows(positions, sessions, position, module)
