# Rung's file: advancing to another stage may change it.
"""Connections to the own databases of modules, for `make budget`."""

from app.infra.module_databases import settings
from dev.pooling.budget_postgres import (
    BOUNCER,
    CLIENTS,
    POSTGRES,
    Budget,
    postgres_limits,
    read_bouncer,
    replicas_named,
)
from dev.pooling.budget_postgres import needs as common_needs
from dev.pooling.capacity import Capacity, Need

DATABASES = 2  # orders-app and orders-app_read


def needs(capacity: Capacity) -> list[Need]:
    """Assumes the limit of deploy/postgres.conf for each server, or on AWS that of its class.
    Elsewhere a module behind a pooler is left out, because deploy/pgbouncer.ini does not name the
    module of a database."""
    postgres = postgres_limits(POSTGRES.read_text())
    if most := capacity.module_max_connections:
        postgres = postgres._replace(
            max_connections=most, main=capacity.main, variable="module_database"
        )
    found = []
    clients = {}
    for module in settings.with_own_database():
        own = settings.read(module)
        replicas = replicas_named(f"{settings.prefix_of(module)}REPLICA_URLS") or 0
        budget = Budget(own, capacity, replicas, postgres)
        if own.pooled and capacity.pool_size:  # on AWS, by deploy/aws/module-databases-pgbouncer.tf
            clients[module], _ = budget.clients()
            servers = [(f"Postgres of {module}", DATABASES)]
            servers += [(f"each replica of {module}", 1)] if replicas else []
            for server, databases in servers:
                found.append(budget.pooled_server(server, databases, read_bouncer()))
        elif not own.pooled:
            for need in budget.direct():
                remedy = need.remedy.replace("DATABASE_", settings.prefix_of(module))
                found.append(need._replace(what=f"{need.what} of {module}", remedy=remedy))
    if clients:
        # One PgBouncer takes the clients of all databases.
        common = next(one for one in common_needs(capacity) if one.what == CLIENTS)
        needed = common.needed + capacity.processes * sum(clients.values())
        pools = " + ".join(map(str, clients.values()))
        found.append(
            Need(
                f"{CLIENTS}, modules' too",
                f"{common.needed} + {capacity.processes} x ({pools})",
                needed,
                common.limit,
                f"set max_client_conn = {needed} in {BOUNCER}",
            )
        )
    return found
