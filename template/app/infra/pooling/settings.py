# Rung's file: advancing to another stage may change it.
"""The settings of Postgres with a pooler in front of it, or without one."""

from pydantic import Field, NonNegativeInt, PostgresDsn, ValidationInfo, field_validator

from app.infra.direct_postgres import PostgresSettings
from app.infra.postgres_url import PostgresUrl

WHEN_POOLED = {
    "read_url": "with DATABASE_POOLED this must be the pooler's read-only alias (app_read in"
    " deploy/pgbouncer.ini), because a session's own settings do not pass through the pooler",
    "direct_url": "with DATABASE_POOLED this must lead to Postgres itself, past the pooler:"
    " migrations need one session from beginning to end",
}


class PooledSettings(PostgresSettings):
    """Each process opens at most read_pool + write_pool connections."""

    # url and read_url lead to a pooler in transaction mode: PgBouncer, RDS Proxy.
    pooled: bool = False
    read_url: PostgresUrl = Field(default_factory=lambda given: given["url"], validate_default=True)
    # For commands that need one session from beginning to end, as migrations do.
    direct_url: PostgresUrl = Field(
        default_factory=lambda given: given["url"], validate_default=True
    )
    # Prepared statements a connection keeps. In transaction mode the next statement may run on
    # another server connection that does not know them, unless the pooler takes them along.
    statement_cache: NonNegativeInt = Field(
        default_factory=lambda given: 0 if given["pooled"] else 100
    )

    @field_validator("read_url", "direct_url")
    @classmethod
    def _differs_when_pooled(cls, url: PostgresDsn, info: ValidationInfo) -> PostgresDsn:
        if info.data.get("pooled") and url == info.data.get("url"):
            raise ValueError(WHEN_POOLED[str(info.field_name)])
        return url
