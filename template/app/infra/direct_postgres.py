# Rung's file: advancing to another stage may change it.
"""Postgres without a pooler in between: its settings, and how a connection is opened."""

import re
from collections.abc import Mapping
from inspect import signature
from typing import Annotated, Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import asyncpg
from asyncpg.connect_utils import _parse_connect_dsn_and_args
from pydantic import AfterValidator, AnyUrl, Field, PostgresDsn, UrlConstraints, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

# asyncpg sends a parameter that it does not know to Postgres, which then refuses each connection.
KNOWN_TO_ASYNCPG = (
    "user|password|dbname|database|passfile|service|target_session_attrs|krbsrvname"
    "|gsslib|ssl(mode|cert|key|rootcert|crl|password|negotiation)|ssl_m(in|ax)_protocol_version"
)
KNOWN_TO_POSTGRES = (
    "application_name|options|search_path|timezone|datestyle|client_encoding|role|work_mem"
    "|(statement|lock|transaction|idle_in_transaction_session|tcp_user)_timeout"
    "|default_transaction_isolation|synchronous_commit"
)
KNOWN = re.compile(f"{KNOWN_TO_ASYNCPG}|(?i:{KNOWN_TO_POSTGRES})")
# asyncpg never uses channel binding, and both values allow that.
NO_EFFECT = (("channel_binding", "prefer"), ("channel_binding", "disable"))
WITH_A_POOLER = "with a pooler in between set DATABASE_POOLED=true, from stage 2 on"
TO_PROVE_THE_SERVER = "write sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt"
INSTEAD = {
    "channel_binding": f"asyncpg has none. To prove the server, {TO_PROVE_THE_SERVER}",
    # asyncpg ignores both beside a host, and a URL has one.
    "host": "write it before the path; a socket as %2Fcloudsql%2FPROJECT%3AREGION%3AINSTANCE",
    "port": "write it after the host",
    "pgbouncer": WITH_A_POOLER,
    "ssl": "write sslmode=require",
    "schema": "write search_path=NAME",
}
GO_ON = (
    "a statement of this transaction failed and the code went on, so Postgres wrote nothing. Run a"
    " statement that may fail within `async with write.begin_nested():`"
)
# asyncpg asks the system and a file of passwords only for what is not given here.
NOTHING_ELSE = dict.fromkeys(signature(_parse_connect_dsn_and_args).parameters) | {
    "user": "app",
    "password": "",
}


def refuse_cut(url: AnyUrl | PostgresDsn) -> None:
    """Raises an error, for which app/infra/environment.py has advice."""
    names = [name for name, _ in url.query_params()]
    whole = url.fragment is None and "@" not in (url.path or "")
    if not (whole and all(re.fullmatch(r"[\w.]+", name) for name in names)):
        raise PydanticCustomError("url_parsing", "The URL seems to end within the password")


def _checked(url: PostgresDsn) -> PostgresDsn:
    parameters = dict(url.query_params())
    refuse_cut(url)
    if any(host["username"] or host["password"] for host in url.hosts()[1:]):
        raise PydanticCustomError("url_parsing", "Only the first host has a user")
    kept = {
        name: value
        for name, value in parameters.items()
        if name != "connect_timeout" and (name, value) not in NO_EFFECT
    }
    for name in kept:
        if not KNOWN.fullmatch(name):
            instead = INSTEAD.get(name, f"remove it, or write options=-c%20{name}%3DVALUE")
            raise ValueError(f"the parameter {name} is not known to asyncpg: {instead}")
    if kept.get("sslrootcert") == "system":
        raise ValueError(f"asyncpg knows no sslrootcert=system: {TO_PROVE_THE_SERVER}")
    _refuse_unreadable(str(url))
    if kept == parameters:
        return url
    query = urlencode(kept, quote_via=quote)
    return PostgresDsn(urlsplit(str(url))._replace(query=query).geturl())


def _refuse_unreadable(url: str) -> None:
    """asyncpg would raise this only when it connects: a wrong sslmode, no such certificate."""
    try:
        _parse_connect_dsn_and_args(**NOTHING_ELSE | {"dsn": url})
    except (OSError, ValueError) as error:
        what = "a file of sslrootcert, sslcert…" if isinstance(error, OSError) else "asyncpg"
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from None


PostgresUrl = Annotated[
    PostgresDsn,
    UrlConstraints(allowed_schemes=["postgresql", "postgres"]),
    AfterValidator(_checked),
]


def with_connect_seconds(given: Mapping[str, Any]) -> dict[str, Any]:
    """A connect_timeout of the URL is DATABASE_CONNECT_SECONDS, unless that is set as well."""
    parameters = dict(parse_qsl(str(given.get("url", "")).partition("?")[2]))
    if "connect_timeout" in parameters:
        return {"connect_seconds": parameters["connect_timeout"], **given}
    return dict(given)


# More is a mistake: the process would take forever to start, or to notice that a server is down.
PoolSize = Annotated[int, Field(gt=0, le=1_000)]
Wait = Annotated[float, Field(gt=0, le=86_400)]


class PostgresSettings(BaseSettings):
    """Each process opens at most read_pool + write_pool connections."""

    model_config = SettingsConfigDict(env_prefix="DATABASE_")

    url: PostgresUrl
    read_pool: PoolSize = 16
    write_pool: PoolSize = 8
    pool_wait_seconds: Wait = 5
    connect_seconds: Wait = 3
    # With a pooler, this only limits the wait of a process: the pooler sets the server's limit.
    statement_seconds: Wait = 10

    _translated = model_validator(mode="before")(with_connect_seconds)


class NothingCommitted(Exception):
    """Postgres answered COMMIT with ROLLBACK, which is no error for it."""


class Connection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    async def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        status = await super().execute(query, *arguments, **options)
        if (query, status) == ("COMMIT;", "ROLLBACK"):
            raise NothingCommitted(GO_ON)
        return status


async def open_connection(
    settings: PostgresSettings, url: PostgresDsn, read_only: bool, options: dict[str, Any]
) -> asyncpg.Connection:
    # A name may lead to the old primary for a while after a failover. Reads continue there, unless
    # the URL has several names: one of them may always be a replica. This costs no round trip. For
    # asyncpg a read-only session is never the "read-write" of a URL.
    if read_only or "target_session_attrs=" not in str(url):
        anywhere = read_only and len(url.hosts()) == 1
        options = {"target_session_attrs": "any" if anywhere else "primary", **options}
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
        connection_class=Connection,
        **options,
    )
