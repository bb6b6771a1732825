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
        return Budget(settings, capacity, replicas or 0, postgres).proxied(capacity.proxy_percent)
    if settings.pooled:
        bouncer = read_bouncer()
        if replicas is None:  # all servers but the first, the primary
            replicas = sum(list(_servers(bouncer).values())[1:])
        return Budget(settings, capacity, replicas, postgres).pooled(bouncer)
    return Budget(settings, capacity, replicas or 0, postgres).direct()


class Budget(NamedTuple):
    """The processes' connections for one database and its replicas."""

    settings: DatabaseSettings
    capacity: Capacity
    replicas: int
    postgres: Postgres

    def direct(self) -> list[Need]:
        """Every pool of every process leads to Postgres itself."""
        besides_reads = [self.settings.write_pool, self._own]
        pooler = "put PgBouncer in front of it and set DATABASE_POOLED=true"
        return [self._of_processes("Postgres", besides_reads, pooler), *self._each_replica()]

    def pooled(self, bouncer: ConfigParser) -> list[Need]:
        """The processes' pools lead to PgBouncer, and its pools to Postgres."""
        each, of_a_process = self.clients()
        clients = self.capacity.processes * each
        need = Need(
            CLIENTS,
            f"{self.capacity.processes} x ({of_a_process})",
            clients,
            _pools(bouncer).max_client_conn,  # of one PgBouncer, because the others may be down
            f"set max_client_conn = {clients} in {BOUNCER}",
        )
        servers = _servers(bouncer).items()
        return [need, *(self.pooled_server(f"Postgres at {at}", n, bouncer) for at, n in servers)]

    def proxied(self, percent: int) -> list[Need]:
        """RDS Proxy's pools lead to the primary, the processes' pools to the replicas."""
        most, direct = self.postgres.max_connections, self.capacity.direct
        connections = PROXIES * math.ceil(most * percent / 100)
        largest = (self.postgres.allowed - direct) // PROXIES * 100 // most
        smaller = f"set connections_percent = {largest} of rds_proxy in {self.capacity.main}"
        words = f"{PROXIES} x {percent}% of {most}"
        remedy = smaller if largest > 0 else ""
        primary = self.postgres.need("Postgres", words, connections, direct, remedy)
        return [primary, *self._each_replica()]

    def clients(self) -> tuple[int, str]:
        """The connections of one process to the pooler, and their sum in words."""
        reads, writes = self.settings.read_pool, self.settings.write_pool
        each, words = reads + writes + self._own, f"{reads} + {writes} + {self._own}"
        if self.replicas:
            words += f" + {self.replicas} x ({reads} + {POSITIONS})"
        return each + self.replicas * (reads + POSITIONS), words

    def pooled_server(self, what: str, databases: int, bouncer: ConfigParser) -> Need:
        """The pools of every PgBouncer, one for each of the server's names, lead to this server."""
        capacity, pools = self.capacity, _pools(bouncer)
        size, reserve = capacity.pool_size or pools.default_pool_size, pools.reserve_pool_size
        times = f"{capacity.pgbouncers} x " if capacity.pgbouncers > 1 else ""
        pools_there = capacity.pgbouncers * databases
        largest = (self.postgres.allowed - capacity.direct) // pools_there - reserve
        smaller = f"set default_pool_size = {largest} in {BOUNCER}"
        if capacity.main:
            smaller = f"set pool_size = {largest} of pgbouncer in {capacity.main}"
        words = f"{times}{databases} x ({size} + {reserve})"
        connections = pools_there * (size + reserve)
        remedy = smaller if largest > 0 else ""
        return self.postgres.need(what, words, connections, capacity.direct, remedy)

    @property
    def _own(self) -> int:
        """The connections of a process beside its pools."""
        return CHECK + (POSITIONS if self.replicas else 0)

    def _each_replica(self) -> list[Need]:
        return [self._of_processes("each replica", [POSITIONS])] if self.replicas else []

    def _of_processes(self, what: str, besides_reads: list[int], *remedies: str) -> Need:
        """The reading pool of each process, and its other connections, lead to this server."""
        processes, direct = self.capacity.processes, self.capacity.direct
        reads, others = self.settings.read_pool, sum(besides_reads)
        largest = (self.postgres.allowed - direct) // processes - others
        smaller = f"set DATABASE_READ_POOL={largest}" if largest > 0 else ""
        words = f"{processes} x ({' + '.join(map(str, [reads, *besides_reads]))})"
        connections = processes * (reads + others)
        return self.postgres.need(what, words, connections, direct, *remedies, smaller)


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
