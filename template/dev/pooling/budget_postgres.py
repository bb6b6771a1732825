# Rung's file: advancing to another stage may change it.
"""Counts the connections to Postgres, and to the pooler in front of it."""

import math
import os
import re
import sys
from configparser import ConfigParser
from configparser import Error as NotReadable
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, NonNegativeInt, PositiveInt, PostgresDsn, ValidationError

from app.infra import environment
from app.infra.connections import DatabaseSettings
from dev.pooling import pgbouncer
from dev.pooling.capacity import Capacity, Need, refuse

POSTGRES = Path("deploy/postgres.conf")
BOUNCER = Path("deploy/pgbouncer.ini")
# The readiness check has its own connection, because a busy pool is no outage.
CHECK = 1
CLIENTS = "PgBouncer's clients"
# On AWS each of PgBouncer's databases has its own proxy: deploy/aws/rds-proxy.tf.
PROXIES = 2
# The query for the WAL positions has its own connection to the primary and to each replica.
POSITIONS = 1
# Postgres' defaults for settings that its file leaves out.
DEFAULTS = {"max_connections": 100, "superuser_reserved_connections": 3, "reserved_connections": 0}


class Postgres(NamedTuple):
    max_connections: int
    superuser_reserved: int
    reserved: int
    main: Path | None = None  # on AWS, the file that sets the database's class
    variable: str = "database"  # of that class

    @property
    def allowed(self) -> int:
        """The connections that an ordinary user may open."""
        return self.max_connections - self.superuser_reserved - self.reserved

    def need(self, what: str, words: str, connections: int, direct: int, *remedies: str) -> Need:
        """These connections and the `direct` ones lead here. An empty remedy does not help."""
        needed = connections + direct
        most = needed + self.superuser_reserved + self.reserved
        more = f"set max_connections = {most} in {POSTGRES}"
        if self.main:
            more = f"take a larger class of {self.variable} in {self.main}"
        remedy = ", or ".join(filter(None, [*remedies, more]))
        return Need(what, f"{words} + {direct}", needed, self.allowed, remedy)


class Pools(BaseModel):
    """The sizes of PgBouncer's pools."""

    max_client_conn: PositiveInt
    default_pool_size: PositiveInt
    reserve_pool_size: NonNegativeInt


def needs(capacity: Capacity) -> list[Need]:
    settings = _settings(capacity)
    named = replicas_named("DATABASE_REPLICA_URLS")
    replicas = capacity.replicas if named is None else named
    postgres = postgres_limits(POSTGRES.read_text())
    if capacity.max_connections:
        postgres = postgres._replace(max_connections=capacity.max_connections, main=capacity.main)
    if settings.pooled and capacity.proxy_percent:
        return proxied(settings, capacity, capacity.proxy_percent, replicas or 0, postgres)
    if settings.pooled:
        bouncer = read_bouncer()
        if replicas is None:  # all servers but the first, the primary
            replicas = sum(list(_servers(bouncer).values())[1:])
        return pooled(settings, capacity, replicas, bouncer, postgres)
    return direct(settings, capacity, replicas or 0, postgres)


def direct(
    settings: DatabaseSettings, capacity: Capacity, replicas: int, postgres: Postgres
) -> list[Need]:
    """Every pool of every process leads to Postgres itself."""
    besides_reads = [settings.write_pool, CHECK + (POSITIONS if replicas else 0)]
    pooler = "put PgBouncer in front of it and set DATABASE_POOLED=true"
    primary = of_processes("Postgres", settings, besides_reads, capacity, postgres, pooler)
    return [primary, *each_replica(settings, capacity, replicas, postgres)]


def each_replica(
    settings: DatabaseSettings, capacity: Capacity, replicas: int, postgres: Postgres
) -> list[Need]:
    if not replicas:
        return []
    return [of_processes("each replica", settings, [POSITIONS], capacity, postgres)]


def of_processes(
    what: str,
    settings: DatabaseSettings,
    besides_reads: list[int],
    capacity: Capacity,
    postgres: Postgres,
    *remedies: str,
) -> Need:
    """The reading pool of each process, and its other connections, lead to this server."""
    others = sum(besides_reads)
    largest = (postgres.allowed - capacity.direct) // capacity.processes - others
    smaller = f"set DATABASE_READ_POOL={largest}" if largest > 0 else ""
    pools = " + ".join(map(str, [settings.read_pool, *besides_reads]))
    connections = capacity.processes * (settings.read_pool + others)
    words = f"{capacity.processes} x ({pools})"
    return postgres.need(what, words, connections, capacity.direct, *remedies, smaller)


def pooled(
    settings: DatabaseSettings,
    capacity: Capacity,
    replicas: int,
    bouncer: ConfigParser,
    postgres: Postgres,
) -> list[Need]:
    """The processes' pools lead to PgBouncer, and its pools to Postgres."""
    pools = _pools(bouncer)
    each, of_a_process = clients_of(settings, replicas)
    clients = capacity.processes * each
    needs = [
        Need(
            CLIENTS,
            f"{capacity.processes} x ({of_a_process})",
            clients,
            pools.max_client_conn,  # of one PgBouncer, because the others may be down
            f"set max_client_conn = {clients} in {BOUNCER}",
        )
    ]
    for server, databases in _servers(bouncer).items():
        needs.append(pooled_server(f"Postgres at {server}", databases, capacity, bouncer, postgres))
    return needs


def clients_of(settings: DatabaseSettings, replicas: int) -> tuple[int, str]:
    """The connections of one process to the pooler, for one database, and their sum in words."""
    own = CHECK + (POSITIONS if replicas else 0)
    each = settings.read_pool + settings.write_pool + own
    pools = f"{settings.read_pool} + {settings.write_pool} + {own}"
    if replicas:
        pools += f" + {replicas} x ({settings.read_pool} + {POSITIONS})"
    return each + replicas * (settings.read_pool + POSITIONS), pools


def pooled_server(
    what: str, databases: int, capacity: Capacity, bouncer: ConfigParser, postgres: Postgres
) -> Need:
    """The pools of every PgBouncer, one for each of the server's names, lead to this server."""
    pools = _pools(bouncer)
    size, reserve = capacity.pool_size or pools.default_pool_size, pools.reserve_pool_size
    times = f"{capacity.pgbouncers} x " if capacity.pgbouncers > 1 else ""
    pools_there = capacity.pgbouncers * databases
    largest = (postgres.allowed - capacity.direct) // pools_there - reserve
    smaller = f"set default_pool_size = {largest} in {BOUNCER}"
    if capacity.main:
        smaller = f"set pool_size = {largest} of pgbouncer in {capacity.main}"
    words = f"{times}{databases} x ({size} + {reserve})"
    connections = pools_there * (size + reserve)
    return postgres.need(what, words, connections, capacity.direct, smaller if largest > 0 else "")


def proxied(
    settings: DatabaseSettings, capacity: Capacity, percent: int, replicas: int, postgres: Postgres
) -> list[Need]:
    """RDS Proxy's pools lead to the primary, the processes' pools to the replicas."""
    connections = PROXIES * math.ceil(postgres.max_connections * percent / 100)
    largest = (postgres.allowed - capacity.direct) // PROXIES * 100 // postgres.max_connections
    smaller = f"set connections_percent = {largest} of rds_proxy in {capacity.main}"
    words = f"{PROXIES} x {percent}% of {postgres.max_connections}"
    primary = postgres.need(
        "Postgres", words, connections, capacity.direct, smaller if largest > 0 else ""
    )
    return [primary, *each_replica(settings, capacity, replicas, postgres)]


def postgres_limits(configuration: str) -> Postgres:
    found = dict(re.findall(r"^\s*(\w+)\s*=\s*'?(\d+)", configuration, re.MULTILINE))
    most, for_superusers, reserved = (int(found.get(*one)) for one in DEFAULTS.items())
    return Postgres(most, for_superusers, reserved)


def _settings(capacity: Capacity) -> DatabaseSettings:
    """The app's pool sizes. The URLs do not matter here."""
    settings = environment.read(
        DatabaseSettings,
        url=PostgresDsn("postgresql://app"),
        read_url=PostgresDsn("postgresql://app_read"),
        direct_url=PostgresDsn("postgresql://direct"),
    )
    if "DATABASE_POOLED" in os.environ:
        return settings
    return settings.model_copy(update={"pooled": capacity.pooled})


def replicas_named(variable: str) -> int | None:
    """None if the variable is not set."""
    urls = os.environ.get(variable)
    return None if urls is None else len(list(filter(None, urls.split(","))))


def read_bouncer() -> ConfigParser:
    try:
        bouncer = pgbouncer.configuration()
    except NotReadable as error:
        sys.exit(f"{BOUNCER} cannot be read: {error}")
    for section in ("databases", "pgbouncer"):
        if section not in bouncer:
            sys.exit(f"{BOUNCER} has no section [{section}]. Copy it from a new repo.")
    return bouncer


def _pools(bouncer: ConfigParser) -> Pools:
    try:
        return Pools.model_validate(dict(bouncer["pgbouncer"]))
    except ValidationError as error:
        refuse(BOUNCER, error)


def _servers(bouncer: ConfigParser) -> dict[str, int]:
    """How many of PgBouncer's databases lead to each server. Each database has its own pool."""
    servers: dict[str, int] = {}
    for connection in bouncer["databases"].values():
        keys = dict(re.findall(r"(\w+)=(\S+)", connection))
        server = f"{keys.get('host', 'localhost')}:{keys.get('port', '5432')}"
        servers[server] = servers.get(server, 0) + 1
    return servers
