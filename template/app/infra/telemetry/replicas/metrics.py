# Rung's file: advancing to another stage may change it.
"""Metrics of the replicas. deploy/telemetry/replicas/ shows them and raises alerts on them."""

from fastapi import FastAPI

from app.infra.replicas.replicas import Replica
from app.infra.telemetry.metrics import Instrument, observe
from app.infra.telemetry.tracing import Attributes


def install(app: FastAPI) -> None:
    # With no replica set, the database is a plain one.
    replicas: list[Replica] = getattr(app.state.database, "replicas", [])
    observe(
        app,
        Instrument(
            "db.replica.reads",
            "{read}",
            "Reads that a replica was chosen for",
            "counter",
            lambda: [(replica.reads, _named(replica)) for replica in replicas],
        ),
        Instrument(
            "db.replica.lag",
            "s",
            "How far a replica is behind the primary",
            "gauge",
            lambda: [(replica.seconds_behind, _named(replica)) for replica in replicas],
        ),
        Instrument(
            "db.replica.in_rotation",
            "{replica}",
            "Whether a replica gets reads: 1, or 0",
            "gauge",
            lambda: [(int(bool(replica.is_in_rotation)), _named(replica)) for replica in replicas],
        ),
    )


def _named(replica: Replica) -> Attributes:
    return {"server.address": replica.name}
