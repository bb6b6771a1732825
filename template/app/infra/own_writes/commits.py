# Rung's file: advancing to another stage may change it.
"""After each commit, notes the WAL position for the client and with its login session."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import structlog
from fastapi import FastAPI
from sqlalchemy import Connection, event
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.database import Database
from app.infra.failures import POSTGRES_FAILS, Unavailable
from app.infra.own_writes.client import Client, OwnWrites, SessionPositions, this_client
from app.infra.own_writes.log_position import MAIN, NOT_KNOWN, Position, decoded

log = structlog.get_logger()

type Note = Callable[[Client, asyncpg.Connection], Awaitable[None]]

# An SQL expression: the primary's position now, as encoded() writes it.
ENCODED_NOW = """
    lpad(to_hex(
        (pg_split_walfile_name(pg_walfile_name(pg_current_wal_insert_lsn()))).timeline_id
    ), 9, '0')
    || '.' || lpad(to_hex((pg_current_wal_insert_lsn() - '0/0')::bigint), 16, '0')
"""

# Stores the position and returns it, in one round trip. Postgres computes the position while the
# row is locked, so a later write of the session stores a later position. Without a row, it is only
# returned. A crash may lose it, which costs only freshness, so nothing waits for the disk.
NOTE_POSITION = f"""
    WITH quick AS (
        SELECT set_config('synchronous_commit', 'off', true),
            set_config('lock_timeout', '1s', true)
    ), noted AS (
        UPDATE login_sessions
        SET positions = positions || jsonb_build_object('{MAIN}', {ENCODED_NOW})
        FROM quick WHERE token_hash = ANY($1)
        RETURNING positions ->> '{MAIN}' AS position
    )
    SELECT coalesce((SELECT max(position) FROM noted), {ENCODED_NOW})
"""  # noqa: S608  # nothing from outside


async def note_commit(client: Client, connection: asyncpg.Connection) -> None:
    sessions, positions = client.noted_sessions, client.positions
    if positions is None or not sessions:
        client.main.wrote(await position_now(connection))
        return
    if positions.in_rows:
        noted = await store_in_rows(connection.fetchval, positions, NOTE_POSITION, sessions)
        position = decoded(noted or "") or NOT_KNOWN
    else:
        position = await position_now(connection)
    client.main.wrote(position)
    await store_beside_rows(positions, sessions, position, MAIN)
    if client.started and positions.note_started:
        await positions.note_started(client, connection)


class PositionedSession(Session):
    """Notes the position on the commit's own connection, and never before the commit.

    A replica can reach a position from before the commit without having replayed the commit. With
    such positions 525 of 4,000 reads were stale, with these none.
    """

    def note_of(self, connection: Connection) -> Note | None:
        """The function that notes a commit here. None: no position is noted."""
        return note_commit


@event.listens_for(PositionedSession, "after_begin")
def _keep_connection(
    session: PositionedSession, transaction: SessionTransaction, connection: Connection
) -> None:
    if note := session.note_of(connection):
        session.info["noted"] = note, connection


@event.listens_for(PositionedSession, "after_commit")
def _note_position(session: Session) -> None:
    if session.in_nested_transaction():
        return  # Only a savepoint was released: nothing is committed yet.
    note, connection = session.info.pop("noted", (None, None))
    if note and not connection.closed:  # after a rollback it is, and nothing was committed
        await_only(note(this_client(), connection.connection.driver_connection))


async def store_beside_rows(
    positions: SessionPositions, sessions: list[bytes], position: Position, database: str
) -> None:
    if positions.note_beside_rows:
        try:
            await positions.note_beside_rows(sessions, position, database)
        except Unavailable as error:
            log.warning("a session's position was not noted", reason=str(error))


async def store_in_rows(
    run: Callable[..., Awaitable[Any]], positions: SessionPositions, note: str, *arguments: object
) -> Any:
    """The commit is done, so a failure here must not turn the answer into an error."""
    try:
        return await run(note, *arguments)
    except (*POSTGRES_FAILS, SQLAlchemyError, Unavailable) as error:
        log.info("a position is noted on another connection", reason=repr(error))
    try:
        other = await positions.connect()
        try:
            return await other.fetchval(note, *arguments)
        finally:
            other.terminate()
    except (*POSTGRES_FAILS, Unavailable) as error:
        log.warning("a session's position was not noted", reason=repr(error))
        return None


async def position_now(connection: asyncpg.Connection) -> Position:
    """NOT_KNOWN if Postgres does not say."""
    try:
        return decoded(await connection.fetchval(f"SELECT {ENCODED_NOW}")) or NOT_KNOWN
    except POSTGRES_FAILS:
        return NOT_KNOWN


def note_positions(app: FastAPI) -> None:
    """Notes the position of every later commit, and returns it to clients. Idempotent."""
    database: Database = app.state.database
    if database.session_class is not PositionedSession:
        database.session_class = PositionedSession
        settings = environment.read(DatabaseSettings)
        app.state.positions = SessionPositions(lambda: connect(settings, settings.url))
        app.add_middleware(OwnWrites, signer=app.state.signer)
