# Rung's file: advancing to another stage may change it.
"""URLs of Postgres: parameters that asyncpg does not know stop the start, by name."""

import re
from collections.abc import Mapping
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from pydantic import AfterValidator, PostgresDsn, UrlConstraints

# asyncpg sends a parameter that it does not know to Postgres, which then refuses each connection.
KNOWN_TO_ASYNCPG = (
    "host|port|user|password|dbname|database|passfile|service|target_session_attrs|krbsrvname"
    "|gsslib|ssl(mode|cert|key|rootcert|crl|password|negotiation)|ssl_m(in|ax)_protocol_version"
)
KNOWN_TO_POSTGRES = (
    "application_name|options|search_path|timezone|datestyle|client_encoding|role|work_mem"
    "|(statement|lock|transaction|idle_in_transaction_session|tcp_user)_timeout"
    "|default_transaction_isolation|synchronous_commit"
)
KNOWN = re.compile(f"{KNOWN_TO_ASYNCPG}|{KNOWN_TO_POSTGRES}", re.IGNORECASE)
# asyncpg never binds to the channel, and both values allow that.
NO_EFFECT = (("channel_binding", "prefer"), ("channel_binding", "disable"))
INSTEAD = {
    "channel_binding": "asyncpg cannot bind to the channel; sslmode=verify-full proves the server",
    "pgbouncer": "with a pooler in between set DATABASE_POOLED=true, from stage 2 on",
}


def _checked(url: PostgresDsn) -> PostgresDsn:
    parameters = dict(url.query_params())
    kept = {
        name: value
        for name, value in parameters.items()
        if name != "connect_timeout" and (name, value) not in NO_EFFECT
    }
    for name in kept:
        if not KNOWN.fullmatch(name):
            instead = INSTEAD.get(name, f"remove it, or write options=-c%20{name}%3DVALUE")
            raise ValueError(f"the parameter {name} is not known to asyncpg: {instead}")
    if kept == parameters:
        return url
    return PostgresDsn(urlsplit(str(url))._replace(query=urlencode(kept)).geturl())


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
