# Rung's file: advancing to another stage may change it.
"""Where login sessions are at stage 4: in Redis, or at one of the steps of their move there."""

from enum import StrEnum

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra.cache.lookups import RedisUrl
from app.infra.environment import Seconds


class Step(StrEnum):
    """The steps of the move, by where sessions are read. From the second step on, a session ends
    in both stores, or the answer is 503. Up to `redis-first` it also starts in both."""

    POSTGRES = "postgres"
    # From Postgres. `make sessions-to-redis` copies those that are older.
    WRITE_BOTH = "write-both"
    # From Redis. From Postgres when Redis does not know a session or does not answer.
    REDIS_THEN_POSTGRES = "redis-then-postgres"
    # From Redis. From Postgres when Redis does not answer. A session found there has not ended,
    # because copies of the next step end it there too. A session not found there may exist only
    # in Redis, so the answer is 503, not 401.
    REDIS_FIRST = "redis-first"
    # From Redis alone, where they also start and are seen.
    REDIS = "redis"


class MoveSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SESSION_")

    store: Step = Step.POSTGRES
    redis_url: RedisUrl | None = Field(default=None, validate_default=True)
    # With less, a busy process that reads the answer late would count it as a timeout.
    redis_seconds: Seconds = 1

    @field_validator("redis_url")
    @classmethod
    def _needed(cls, url: RedisUrl | None, info: ValidationInfo) -> RedisUrl | None:
        step = info.data.get("store")
        if url is None and step not in {None, Step.POSTGRES}:
            raise ValueError(f"must be set with SESSION_STORE={step}")
        return url
