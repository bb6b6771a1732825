# Rung's file: advancing to another stage may change it.
"""Login sessions move from Postgres to Redis, a deploy for each step, and nobody is logged out.

Copies of two neighbouring steps work side by side, in both directions of a deploy. A session that
one step writes can be read by its neighbours, and a session that it ends has ended for them. One
exception: a login beyond SESSION_MOST ends an old session, which may live on in the other store.
"""

import time
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.failures import Unavailable
from app.infra.own_writes.client import this_client
from app.infra.redis_sessions.settings import Step
from app.infra.redis_sessions.store import ENDED, PAUSE_SECONDS, RedisSessions
from app.infra.session_rows import Session

log = structlog.get_logger()


class WriteBoth(RedisSessions):
    """Sessions are read from Postgres, and start and end in both."""

    async def find(self, token_hash: bytes) -> Session | None:
        return await self.rows.find(token_hash)

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        await self.rows.note_visit(token_hash, session)
        await super().note_visit(token_hash, session)

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        self.join(write)
        await self.rows.start(write, token_hash, session)
        await super().start(write, token_hash, session)

    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]:
        return await self.rows.all_of(write, user_id) | await super().all_of(write, user_id)


class ReadRedis(WriteBoth):
    _paused_until = 0.0

    async def held_unless_paused(self, token_hash: bytes) -> bytes | None:
        """Raises Unavailable at once while Redis is paused. The caller then reads Postgres."""
        if time.monotonic() < self._paused_until:
            raise Unavailable("the sessions' Redis: it did not answer a moment ago")
        try:
            return await self.held(token_hash)
        except Unavailable as error:
            log.warning("sessions are read from Postgres", reason=str(error))
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise


class RedisThenPostgres(ReadRedis):
    async def find(self, token_hash: bytes) -> Session | None:
        try:
            held = await self.held_unless_paused(token_hash)
        except Unavailable:
            return await self.rows.find(token_hash)
        if held == ENDED:
            return None
        return self.alive(held) or await self._copied(token_hash)

    async def _copied(self, token_hash: bytes) -> Session | None:
        session = await self.rows.find(token_hash)
        if session is None:
            return None
        try:
            # It may have ended since: the row may come from a replica that lags.
            return self.alive(await self.keep(token_hash, session))
        except Unavailable:
            return session


class RedisFirst(ReadRedis):
    async def find(self, token_hash: bytes) -> Session | None:
        try:
            return self.alive(await self.held_unless_paused(token_hash))
        except Unavailable:
            session = await self.rows.find(token_hash)
            if session is None:
                raise  # a copy of the next step may have started it, or seen it, in Redis alone
            # That copy also notes positions in Redis alone.
            this_client().learn_unknown()
            return session


STEPS: dict[Step, type[RedisSessions]] = {
    Step.WRITE_BOTH: WriteBoth,
    Step.REDIS_THEN_POSTGRES: RedisThenPostgres,
    Step.REDIS_FIRST: RedisFirst,
}
