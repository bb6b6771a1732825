# Rung's file: advancing to another stage may change it.
"""Where login sessions are at stage 4: in Redis, or at one of the steps of their move there."""

from enum import StrEnum

from pydantic import Field, PositiveFloat, RedisDsn, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


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
