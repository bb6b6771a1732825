# Rung's file: advancing to another stage may change it.
"""MODULE_BILLING_DATABASE_REPLICA_URLS and the rest: the replicas of a module's own database."""

from app.infra.module_databases.settings import read_as
from app.infra.replicas.replicas import ReplicaSettings

SETTINGS = [f"REPLICA_{name.upper()}" for name in ReplicaSettings.model_fields]


def read(module: str) -> ReplicaSettings:
    """The settings of DATABASE_REPLICA_…, each under the module's prefix."""
    return read_as(ReplicaSettings, module, "REPLICA_")
