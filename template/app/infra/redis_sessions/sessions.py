# Rung's file: advancing to another stage may change it.
"""Installs the store of login sessions that SESSION_STORE names."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra import environment, health
from app.infra.redis_sessions.settings import MoveSettings, Step
from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import Session, SessionRows, SessionSettings


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


def install(app: FastAPI) -> None:
    settings: SessionSettings = app.state.session_settings
    move = environment.read(MoveSettings)
    rows: SessionRows = app.state.session_store
    app.state.session_redis = None
    if move.redis_url is None or move.store is Step.POSTGRES:
        return
    redis = RedisSessions(str(move.redis_url), move.redis_seconds, settings)
    app.state.session_store = _step(move.store)(rows, redis)
    app.state.session_redis = redis
    if positions := getattr(app.state, "positions", None):
        positions.in_rows = move.store is not Step.REDIS
        positions.stores.append(redis)
    health.add_readiness_check(app, "sessions", redis.check)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    redis: RedisSessions | None = app.state.session_redis
    try:
        yield
    finally:
        if redis:
            await redis.close()


def _step(step: Step) -> type[InRedis]:
    if step is Step.REDIS:
        return InRedis
    # Imported only while sessions move: the folder `move` may be deleted afterwards.
    from app.infra.redis_sessions.move.steps import STEPS

    return STEPS[step]
