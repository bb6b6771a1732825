# Rung's file: advancing to another stage may change it.
"""Login sessions move from Postgres to Redis, a deploy for each step, and nobody is logged out.

Copies of two neighbouring steps work side by side, whichever way the deploy goes: what a step
writes, its neighbours can read, and what it ends has ended for them.
"""

import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from enum import StrEnum
from uuid import UUID

import structlog
from fastapi import FastAPI
from pydantic import Field, PositiveFloat, RedisDsn, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra import environment, health
from app.infra.failures import Unavailable
from app.infra.redis_sessions.store import PAUSE_SECONDS, RedisSessions
from app.infra.session_rows import Session, SessionRows, SessionSettings

log = structlog.get_logger()


class Step(StrEnum):
    """Where sessions are read. From the second on they end in both, or the answer is 503; up to
    the last but one they start in both as well."""

    POSTGRES = "postgres"
    # From Postgres. `make sessions-to-redis` copies those that are older.
    WRITE_BOTH = "write-both"
    # From Redis, and from Postgres what Redis does not know, or when it does not answer.
    REDIS_THEN_POSTGRES = "redis-then-postgres"
    # From Redis; from Postgres when it does not answer. What is found there has not ended: copies
    # of the next step end it there too. What is not may be in Redis alone, so that is a 503.
    REDIS_FIRST = "redis-first"
    # From Redis alone, where they also start and are seen.
    REDIS = "redis"


class MoveSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SESSION_")

    store: Step = Step.POSTGRES
    redis_url: RedisDsn | None = Field(default=None, validate_default=True)
    # With less, a process that was busy meanwhile would take a late look for no answer.
    redis_seconds: PositiveFloat = 1

    @field_validator("redis_url")
    @classmethod
    def _needed(cls, url: RedisDsn | None, info: ValidationInfo) -> RedisDsn | None:
        step = info.data.get("store")
        if url is None and step not in {None, Step.POSTGRES}:
            raise ValueError(f"SESSION_STORE={step} needs it")
        return url


class WriteBoth:
    def __init__(self, rows: SessionRows, redis: RedisSessions) -> None:
        self.rows = rows
        self.redis = redis

    async def find(self, token_hash: bytes) -> Session | None:
        return await self.rows.find(token_hash)

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        await self.rows.note_visit(token_hash, session)
        await self.redis.note_visit(token_hash, session)

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        self.redis.join(write)
        await self.rows.start(write, token_hash, session)
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
        return await self.rows.all_of(write, user_id) | await self.redis.all_of(user_id)


class ReadRedis(WriteBoth):
    _paused_until = 0.0

    async def _held(self, token_hash: bytes) -> bytes | None:
        """Raises Unavailable at once while Redis is paused: what follows is a read of Postgres."""
        if time.monotonic() < self._paused_until:
            raise Unavailable("the sessions' Redis: it did not answer a moment ago")
        try:
            return await self.redis.held(token_hash)
        except Unavailable as error:
            log.warning("sessions are read from Postgres", reason=str(error))
            self._paused_until = time.monotonic() + PAUSE_SECONDS
            raise


class RedisThenPostgres(ReadRedis):
    async def find(self, token_hash: bytes) -> Session | None:
        try:
            held = await self._held(token_hash)
        except Unavailable:
            return await self.rows.find(token_hash)
        return await self._copied(token_hash) if held is None else self.redis.alive(held)

    async def _copied(self, token_hash: bytes) -> Session | None:
        session = await self.rows.find(token_hash)
        if session is None:
            return None
        try:
            # It may have ended since, and the row come from a replica that does not know yet.
            return self.redis.alive(await self.redis.keep(token_hash, session))
        except Unavailable:
            return session


class RedisFirst(ReadRedis):
    async def find(self, token_hash: bytes) -> Session | None:
        try:
            return self.redis.alive(await self._held(token_hash))
        except Unavailable:
            session = await self.rows.find(token_hash)
            if session is None:
                raise  # a copy of the next step may have started it, or seen it, in Redis alone
            return session


class InRedis(WriteBoth):
    """What ends, ends in Postgres too: a copy of the step before may fall back to its row."""

    async def find(self, token_hash: bytes) -> Session | None:
        return await self.redis.find(token_hash)

    async def note_visit(self, token_hash: bytes, session: Session) -> None:
        await self.redis.note_visit(token_hash, session)

    async def start(self, write: AsyncSession, token_hash: bytes, session: Session) -> None:
        await self.redis.start(write, token_hash, session)

    async def all_of(self, write: AsyncSession, user_id: UUID) -> dict[bytes, Session]:
        return await self.redis.all_of(user_id)


STEPS = {
    Step.WRITE_BOTH: WriteBoth,
    Step.REDIS_THEN_POSTGRES: RedisThenPostgres,
    Step.REDIS_FIRST: RedisFirst,
    Step.REDIS: InRedis,
}


def install(app: FastAPI) -> None:
    settings: SessionSettings = app.state.session_settings
    move = environment.read(MoveSettings)
    rows = SessionRows(app.state.database, settings)
    app.state.session_store, app.state.session_redis = rows, None
    if move.redis_url is None or move.store is Step.POSTGRES:
        return
    redis = RedisSessions(str(move.redis_url), move.redis_seconds, settings)
    app.state.session_store = STEPS[move.store](rows, redis)
    app.state.session_redis = redis
    health.add_readiness_check(app, "sessions", redis.check)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    redis: RedisSessions | None = app.state.session_redis
    try:
        yield
    finally:
        if redis:
            await redis.close()
