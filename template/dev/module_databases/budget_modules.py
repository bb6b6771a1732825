# Rung's file: advancing to another stage may change it.
"""Connections to the own databases of modules, for `make budget`."""

from app.infra.module_databases import settings
from dev.pooling.budget_postgres import POSTGRES, direct, postgres_limits
from dev.pooling.capacity import Capacity, Need


def needs(capacity: Capacity) -> list[Need]:
    """Each server is taken to allow what deploy/postgres.conf says, or on AWS what its class does.
    A module behind a pooler is left out, because deploy/pgbouncer.ini does not say whose its
    databases are."""
    postgres = postgres_limits(POSTGRES.read_text())
    if most := capacity.module_max_connections:
        postgres = postgres._replace(
            max_connections=most, main=capacity.main, variable="module_database"
        )
    found = []
    for module in settings.named():
        own = settings.read(module)
        if not own.pooled:
            need = direct(own, capacity, 0, postgres)[0]
            remedy = need.remedy.replace("DATABASE_", settings.prefix_of(module))
            found.append(need._replace(what=f"Postgres of {module}", remedy=remedy))
    return found
