# Rung's file: advancing to another stage may change it.
"""Postgres without a pooler in between: its settings, and how a connection is opened."""

from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
from pydantic import PositiveFloat, PositiveInt, PostgresDsn, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from app.infra.postgres_url import PostgresUrl, with_connect_seconds

type Connect = Callable[[], Awaitable[asyncpg.Connection]]


class PostgresSettings(BaseSettings):
    """Each process opens at most read_pool + write_pool connections."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: PostgresUrl
    read_pool: PositiveInt = 16
    write_pool: PositiveInt = 8
    pool_wait_seconds: PositiveFloat = 5
    connect_seconds: PositiveFloat = 3
    # With a pooler this is only how long a process waits: the pooler sets the server's own limit.
    statement_seconds: PositiveFloat = 10

    _translated = model_validator(mode="before")(with_connect_seconds)


class DatabaseSettings(PostgresSettings):
    @property
    def read_url(self) -> PostgresDsn:
        return self.url

    @property
    def direct_url(self) -> PostgresDsn:
        """For commands that need one session from beginning to end, as migrations do."""
        return self.url


async def open_connection(
    settings: PostgresSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    return await asyncpg.connect(
        str(url),
        timeout=settings.connect_seconds,
        # The server has this limit too. Ours is for a server that does not answer.
        command_timeout=settings.statement_seconds + 1,
        server_settings={
            "default_transaction_read_only": "on" if read_only else "off",
            "statement_timeout": f"{settings.statement_seconds}s",
            "idle_in_transaction_session_timeout": "30s",
            # Compiling a plan takes longer than a request's query should run.
            "jit": "off",
        },
        **options,
    )


def transaction_engine_with(settings: PostgresSettings, connect: Connect) -> AsyncEngine:
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=connect,
        pool_size=settings.write_pool,
        max_overflow=0,
        pool_timeout=settings.pool_wait_seconds,
        hide_parameters=True,  # in errors, and so in the log
        pool_pre_ping=True,
    )
