# Rung's file: advancing to another stage may change it.
"""Login sessions once their move is finished: in Redis alone."""

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import Session, SessionRows


class InRedis:
    """A session that ends, ends in Postgres too: a copy of the step before may read its row."""

    def __init__(self, rows: SessionRows, redis: RedisSessions) -> None:
        self.rows = rows
        self.redis = redis

    async def find(self, token_hash: bytes) -> Session | None:
        return await self.redis.find(token_hash)

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        await self.redis.note_visit(token_hash, session)

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        await self.redis.start(write, token_hash, session)

    async def end(self, write: AsyncSession, token_hash: bytes) -> None:
        self.redis.join(write)
        ended = await self.rows.end(write, token_hash)
        await self.redis.end(write, token_hash, ended)

    async def end_all(
        self, write: AsyncSession, user_id: UUID, *, besides: bytes | None = None
    ) -> None:
        self.redis.join(write)
        ended = await self.rows.end_all(write, user_id, besides=besides)
        await self.redis.end_all(write, user_id, ended, besides=besides)

    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]:
        return await self.redis.all_of(user_id)
