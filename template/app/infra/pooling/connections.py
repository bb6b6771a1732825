# Rung's file: advancing to another stage may change it.
"""Postgres with a pooler in front of it, or without one: settings, connections, the engine."""

import asyncio
import time
from contextlib import ExitStack
from typing import Annotated, Any

import asyncpg
from pydantic import BeforeValidator, Field, PostgresDsn, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from app.infra import direct_postgres
from app.infra.direct_postgres import PostgresSettings, PostgresUrl
from app.infra.failures import NotConnected

RETRY_SECONDS = 0.05

# After a failover the pooler may keep connections to the old primary, which is a replica now. If a
# new connection leads there too, the name itself still points to the old primary.
END_IF_LEFT_BEHIND = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = pg_backend_pid() AND pg_is_in_recovery() AND backend_start < now() - interval '1 s'
"""

POOLER_LOST = (
    OSError,
    asyncpg.AdminShutdownError,
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.InterfaceError,
)

WHEN_POOLED = {
    "read_url": "with DATABASE_POOLED this must be the pooler's read-only name (app_read in"
    " deploy/pgbouncer.ini) or a role whose sessions begin read-only, because a session's own"
    " settings do not pass through the pooler",
    "direct_url": "with DATABASE_POOLED this must lead to Postgres itself, past the pooler:"
    " migrations need one session from beginning to end",
}


def _by_commas(given: object) -> object:
    return [part for part in given.split(",") if part] if isinstance(given, str) else given


PostgresUrls = Annotated[list[PostgresUrl], NoDecode, BeforeValidator(_by_commas)]


def server_name(url: PostgresDsn) -> str:
    """Without the password, for messages."""
    return ",".join(f"{host['host']}:{host['port'] or 5432}" for host in url.hosts())


class PooledSettings(PostgresSettings):
    # url and read_url lead to a pooler in transaction mode: PgBouncer, RDS Proxy.
    pooled: bool = False
    read_url: PostgresUrl = Field(default_factory=lambda given: given["url"], validate_default=True)
    # For commands that need one session from beginning to end, as migrations do.
    direct_url: PostgresUrl = Field(
        default_factory=lambda given: given["url"], validate_default=True
    )
    # Prepared statements a connection keeps. In transaction mode the next statement may run on
    # another server connection that does not know them, unless the pooler takes them along.
    statement_cache: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        default_factory=lambda given: 0 if given["pooled"] else 100
    )

    @property
    def engine_options(self) -> dict[str, Any]:
        return {"prepared_statement_cache_size": self.statement_cache}

    @field_validator("read_url", "direct_url")
    @classmethod
    def _differs_when_pooled(cls, url: PostgresDsn, info: ValidationInfo) -> PostgresDsn:
        if info.data.get("pooled") and url == info.data.get("url"):
            raise ValueError(WHEN_POOLED[str(info.field_name)])
        return url


class PooledConnection(direct_postgres.Connection):
    """After a type has changed, each statement of this process ends with another comment.

    A pooler that keeps prepared statements finds them by their text, and a new connection of the
    app gets the old one again. Postgres would refuse it until the pooler's own connection ends.
    """

    comment = ""

    async def fetch(self, query: str, *arguments: Any, **options: Any) -> Any:
        try:
            return await super().fetch(query + self.comment, *arguments, **options)
        except asyncpg.InvalidCachedStatementError:
            self._change_comment()
            raise

    async def prepare(self, query: str, **options: Any) -> Any:
        return await super().prepare(query + self.comment, **options)

    async def reload_schema_state(self) -> None:
        """SQLAlchemy calls this before it prepares a refused statement again."""
        self._change_comment()
        await super().reload_schema_state()

    @staticmethod
    def _change_comment() -> None:
        PooledConnection.comment = f" /* {time.time()} */"  # per copy: its own statements


async def open_connection(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    options = {"statement_cache_size": settings.statement_cache, **options}
    if settings.pooled and url != settings.direct_url:
        return await _retried(settings, url, read_only, options)
    if url == settings.read_url != settings.url:  # a replica here would hide a client's own writes
        options["target_session_attrs"] = "primary"
    return await direct_postgres.open_connection(settings, url, read_only, options)


async def _retried(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    """Waits for a pooler that is being restarted: no statement was sent, so none is lost."""
    deadline = time.monotonic() + settings.connect_seconds
    while True:
        try:
            return await _through_the_pooler(settings, url, read_only, options)
        except TimeoutError:  # which is an OSError
            raise
        except asyncpg.ProtocolViolationError as error:  # PgBouncer's code for each of its errors
            if "(max_" in str(error):  # such as max_client_conn
                raise asyncpg.TooManyConnectionsError(str(error)) from error
            raise
        except POOLER_LOST as error:
            if time.monotonic() > deadline:
                raise NotConnected(f"Postgres: the pooler takes no connection: {error}") from error
        await asyncio.sleep(RETRY_SECONDS)


async def _through_the_pooler(
    settings: PooledSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    connection = await asyncpg.connect(
        str(url),
        timeout=settings.connect_seconds,
        command_timeout=settings.statement_seconds + 1,
        connection_class=PooledConnection,
        **options,
    )
    with ExitStack() as on_failure:
        on_failure.callback(connection.terminate)
        await _refuse_wrong_name(connection, read_only, settings.connect_seconds)
        # Before asyncpg looks up a type (an array, an enum), it turns jit off with set_config. This
        # would pin a session of RDS Proxy, and the pooler has turned jit off already.
        connection._server_caps = connection._server_caps._replace(jit=False)
        on_failure.pop_all()
    return connection


async def _refuse_wrong_name(
    connection: asyncpg.Connection, read_only: bool, seconds: float
) -> None:
    # A pooler accepts logins while Postgres is down, so run a query to check.
    found = await connection.fetchval("SHOW transaction_read_only", timeout=seconds)
    if read_only and found == "off":
        raise NotConnected(
            "DATABASE_READ_URL leads to sessions that can write: it needs a name of the pooler"
            " whose sessions begin with default_transaction_read_only = on"
        )
    if not read_only and found == "on":
        await connection.execute(END_IF_LEFT_BEHIND, timeout=seconds)
        raise NotConnected("DATABASE_URL leads to the pooler's read-only name, or to a replica")
