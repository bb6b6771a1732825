# Rung's file: advancing to another stage may change it.
"""Login sessions in Postgres, with the WAL position that each session's client must see."""

from dataclasses import dataclass

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra import environment
from app.infra.own_writes.client import this_client
from app.infra.own_writes.log_position import decoded
from app.infra.reads import Query
from app.infra.session_rows import (
    SESSION_BY_TOKEN,
    LoginSession,
    Session,
    SessionRows,
    SessionSettings,
    WithRow,
    with_row,
)


@dataclass(frozen=True, slots=True)
class SessionWithPositions(Session):
    positions: dict[str, str]


SESSION_WITH_POSITIONS = Query(
    SESSION_BY_TOKEN.statement.add_columns(LoginSession.positions), SessionWithPositions
)


class PositionedRows(SessionRows):
    """Reads sessions on the primary, except for clients that carry their positions."""

    async def find(self, token_hash: bytes) -> Session | None:
        return await this_client().find_once(token_hash, self._find)

    async def find_with[RowT](
        self, token_hash: bytes, query: Query[RowT]
    ) -> tuple[Session, RowT | None] | None:
        if this_client().echoes and (found := await super().find_with(token_hash, query)):
            return found
        both: WithRow[SessionWithPositions, RowT] = with_row(SESSION_WITH_POSITIONS, query)
        read = self._reader().on_primary()
        stored = await both.first(read, token_hash=token_hash, idle=self._idle)
        if stored:
            _learn(token_hash, stored[0])
        return stored

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        await super().start(write, token_hash, session)
        await this_client().has_started(token_hash)

    async def _find(self, token_hash: bytes) -> Session | None:
        if this_client().echoes and (session := await super().find(token_hash)):
            return session
        # A replica that does not know a session is no reason to refuse it.
        read = self._reader().on_primary()
        found = await read.first(SESSION_WITH_POSITIONS, token_hash=token_hash, idle=self._idle)
        if found:
            _learn(token_hash, found)
        return found


def _learn(token_hash: bytes, found: SessionWithPositions) -> None:
    client = this_client()
    if token_hash == client.token_hash:
        stored = {name: decoded(position) for name, position in found.positions.items()}
        client.learn({name: position for name, position in stored.items() if position})


def install(app: FastAPI) -> None:
    """Call it before anything wraps the store of sessions."""
    if hasattr(app.state, "positions"):
        settings = environment.read(SessionSettings)
        database = app.state.database
        app.state.session_store = PositionedRows(database.reader, database.transaction, settings)
