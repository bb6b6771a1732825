# Rung's file: advancing to another stage may change it.
"""Metrics of the replicas. deploy/telemetry/replicas/ shows them and raises alerts on them."""

from fastapi import FastAPI

from app.infra.replicas.replicas import Replica
from app.infra.telemetry.metrics import Instrument, observe
from app.infra.telemetry.tracing import Attributes


def install(app: FastAPI) -> None:
    databases = {"": app.state.database} | getattr(app.state, "module_databases", {})
    # With no replica set, a database is a plain one.
    replicas = {
        replica: _named(replica, module)
        for module, database in databases.items()
        for replica in getattr(database, "replicas", [])
    }
    observe(
        app,
        Instrument(
            "db.replica.reads",
            "{read}",
            "Reads that a replica was chosen for",
            "counter",
            lambda: [(replica.reads, named) for replica, named in replicas.items()],
        ),
        Instrument(
            "db.replica.lag",
            "s",
            "How far a replica is behind the primary",
            "gauge",
            lambda: [(replica.seconds_behind, named) for replica, named in replicas.items()],
        ),
        Instrument(
            "db.replica.in_rotation",
            "{replica}",
            "Whether a replica gets reads: 1, or 0",
            "gauge",
            lambda: [(int(bool(one.is_in_rotation)), named) for one, named in replicas.items()],
        ),
    )


def _named(replica: Replica, module: str) -> Attributes:
    return {"server.address": replica.name} | ({"module": module} if module else {})
