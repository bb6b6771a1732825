# Rung's file: advancing to another stage may change it.
"""Count the connections that all processes may open, beside what the servers allow."""

import os
import re
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import NamedTuple

from dotenv import load_dotenv
from pydantic import PostgresDsn

from app.infra.connections import DatabaseSettings
from dev import pgbouncer

CAPACITY = Path("deploy/capacity.toml")
POSTGRES = Path("deploy/postgres.conf")
# A readiness check has a connection of its own, so that a busy pool is not taken for an outage.
CHECK = 1


class Capacity(NamedTuple):
    copies: int
    workers: int
    during_a_deploy: int
    direct: int

    @property
    def processes(self) -> int:
        return self.copies * self.during_a_deploy * self.workers


class Need(NamedTuple):
    what: str
    sum: str
    needed: int
    limit: int
    remedy: str


def main() -> None:
    load_dotenv()
    settings = _settings()
    capacity = Capacity(**tomllib.loads(CAPACITY.read_text()))
    replicas = len(list(filter(None, os.environ.get("DATABASE_REPLICA_URLS", "").split(","))))
    allowed = postgres_connections(POSTGRES.read_text())
    if settings.pooled:
        needs = pooled(settings, capacity, replicas, pgbouncer.configuration(), allowed)
    else:
        needs = direct(settings, capacity, replicas, allowed)
    print(table(settings, capacity, needs))
    if problems := [f"{n.what}: {n.remedy}" for n in needs if n.needed > n.limit]:
        sys.exit("\n".join(["It does not fit.", *problems]))


def direct(
    settings: DatabaseSettings, capacity: Capacity, replicas: int, allowed: int
) -> list[Need]:
    """Every pool of every process leads to Postgres itself."""
    each = settings.read_pool + settings.write_pool + CHECK
    needed = capacity.processes * each + capacity.direct
    fitting = (allowed - capacity.direct) // capacity.processes - settings.write_pool - CHECK
    smaller = f", or DATABASE_READ_POOL={fitting}" if fitting > 0 else ""
    more = f"max_connections higher by {{}} in {POSTGRES}"
    needs = [
        Need(
            "Postgres",
            f"{capacity.processes} x ({settings.read_pool} + {settings.write_pool} + {CHECK})"
            f" + {capacity.direct}",
            needed,
            allowed,
            f"PgBouncer in front of it (DATABASE_POOLED=true){smaller},"
            f" or {more.format(needed - allowed)}",
        )
    ]
    if replicas:
        needed = capacity.processes * (settings.read_pool + CHECK) + capacity.direct
        fitting = (allowed - capacity.direct) // capacity.processes - CHECK
        needs.append(
            Need(
                "each replica",
                f"{capacity.processes} x ({settings.read_pool} + {CHECK}) + {capacity.direct}",
                needed,
                allowed,
                f"DATABASE_READ_POOL={fitting}, or {more.format(needed - allowed)}",
            )
        )
    return needs


def pooled(
    settings: DatabaseSettings,
    capacity: Capacity,
    replicas: int,
    bouncer: ConfigParser,
    allowed: int,
) -> list[Need]:
    """The processes' pools lead to PgBouncer, and its pools to Postgres."""
    most, size, reserve = (
        int(bouncer["pgbouncer"][name])
        for name in ("max_client_conn", "default_pool_size", "reserve_pool_size")
    )
    file = pgbouncer.CONFIGURATION.relative_to(Path.cwd())
    each = settings.read_pool + settings.write_pool + CHECK
    of_replicas = f" + {replicas} x ({settings.read_pool} + {CHECK})" if replicas else ""
    clients = capacity.processes * (each + replicas * (settings.read_pool + CHECK))
    needs = [
        Need(
            "PgBouncer's clients",
            f"{capacity.processes} x ({settings.read_pool} + {settings.write_pool}"
            f" + {CHECK}{of_replicas})",
            clients,
            most,
            f"max_client_conn = {clients} in {file}",
        )
    ]
    for server, aliases in _servers(bouncer).items():
        needed = aliases * (size + reserve) + capacity.direct
        fitting = (allowed - capacity.direct) // aliases - reserve
        needs.append(
            Need(
                f"Postgres at {server}",
                f"{aliases} x ({size} + {reserve}) + {capacity.direct}",
                needed,
                allowed,
                f"default_pool_size = {fitting} in {file},"
                f" or max_connections higher by {needed - allowed} in {POSTGRES}",
            )
        )
    return needs


def postgres_connections(configuration: str) -> int:
    """How many an ordinary user may open."""
    found = dict(re.findall(r"^\s*(\w+)\s*=\s*'?(\d+)", configuration, re.MULTILINE))
    # Postgres' own defaults, where the file says nothing.
    defaults = {
        "max_connections": "100",
        "superuser_reserved_connections": "3",
        "reserved_connections": "0",
    }
    most, *reserved = (int(found.get(name, default)) for name, default in defaults.items())
    return most - sum(reserved)


def table(settings: DatabaseSettings, capacity: Capacity, needs: list[Need]) -> str:
    way = "through PgBouncer" if settings.pooled else "straight to Postgres"
    processes = (
        f"{capacity.copies} copies x {capacity.during_a_deploy} during a deploy"
        f" x {capacity.workers} workers = {capacity.processes} processes, {way}"
    )
    rows = [("connections", "", "needed", "limit")]
    rows += [(n.what, n.sum, str(n.needed), str(n.limit)) for n in needs]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    what, total, *numbers = widths
    lines = [
        f"  {row[0]:{what}}  {row[1]:{total}}"
        + "".join(f"  {n:>{width}}" for n, width in zip(row[2:], numbers, strict=True))
        for row in rows
    ]
    return "\n".join([processes, "", *lines])


def _settings() -> DatabaseSettings:
    """With the sizes that the app would have here; where the URLs lead does not matter."""
    return DatabaseSettings(
        url=PostgresDsn("postgresql://app"),
        read_url=PostgresDsn("postgresql://app_read"),
        direct_url=PostgresDsn("postgresql://direct"),
    )


def _servers(bouncer: ConfigParser) -> dict[str, int]:
    """How many of PgBouncer's databases, each a pool of its own, lead to each server."""
    servers: dict[str, int] = {}
    for connection in bouncer["databases"].values():
        keys = dict(re.findall(r"(\w+)=(\S+)", connection))
        server = f"{keys['host']}:{keys.get('port', '5432')}"
        servers[server] = servers.get(server, 0) + 1
    return servers


if __name__ == "__main__":
    main()
