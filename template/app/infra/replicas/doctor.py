# Rung's file: advancing to another stage may change it.
"""Judges replicas for the doctor: the lag of each, and the cost of the reads on it."""

import asyncio
import math
import time
from statistics import fmean

from pydantic import PostgresDsn

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor.evidence import Database, Evidence, EvidencePart, Skipped
from app.infra.doctor.finding import (
    Capability,
    CapabilityEvidence,
    Finding,
    Window,
    busy,
    is_busy_with_reads,
    seen,
)
from app.infra.doctor.looking import Refused, gap, look_at_postgres
from app.infra.failures import NotConnected
from app.infra.replicas.replicas import Replicas, ReplicaSettings

NAME = "replicas"
LOOK_SECONDS = 0.5
STATEMENTS = "statements of the replicas"


class ReplicaSeen(EvidencePart):
    """In the order of DATABASE_REPLICA_URLS: an address does not belong in evidence."""

    left_out: float  # share of the samples in which the app would send it no reads
    behind_s: float | None  # at most; None: it did not answer, or follows another primary


class ReplicasSeen(EvidencePart):
    replicas: list[ReplicaSeen]
    reads: bool = True  # false: the app notes positions, and every read goes to the primary


async def look(window: Window) -> CapabilityEvidence | None:
    replicas = environment.read(ReplicaSettings)
    if not replicas.urls:
        return None
    database = environment.read(DatabaseSettings)
    found = await look_at_replicas(window, database, replicas, "DATABASE_REPLICA_")
    return CapabilityEvidence(*found)


async def look_at_replicas(
    window: Window, database: DatabaseSettings, replicas: ReplicaSettings, prefix: str
) -> tuple[ReplicasSeen, list[Database], list[Skipped]]:
    """The replicas of one primary, whose variables begin with `prefix`."""
    direct = replicas.direct_urls or ([] if database.pooled else replicas.urls)
    lag, *found = await asyncio.gather(
        _lag(window, database, replicas),
        *(_reader(window, database, url, prefix) for url in direct),
    )
    skipped = [one for one in found if isinstance(one, Skipped)]
    if not direct:
        remedy = f"set {prefix}DIRECT_URLS, which leads past the pooler"
        skipped = [Skipped(source=STATEMENTS, why="a pooler is in front of it", remedy=remedy)]
    readers = [one for one in found if isinstance(one, Database)]
    return ReplicasSeen(replicas=lag, reads=replicas.reads), readers, skipped


async def _lag(
    window: Window, database: DatabaseSettings, settings: ReplicaSettings
) -> list[ReplicaSeen]:
    """Judged by the same code as in the app. One connection to the primary, one to each replica."""
    samples: list[list[tuple[bool, float]]] = []
    slower = settings.model_copy(update={"poll_seconds": LOOK_SECONDS})
    async with Replicas(database, slower) as watched:
        began = time.monotonic()
        while time.monotonic() - began < window.seconds:
            await asyncio.sleep(LOOK_SECONDS)
            if all(one.is_in_rotation is not None for one in watched.replicas):
                now = [(not one.is_in_rotation, one.seconds_behind) for one in watched.replicas]
                samples.append(now)
    return [_seen(one) for one in zip(*samples, strict=True)]


def _seen(samples: tuple[tuple[bool, float], ...]) -> ReplicaSeen:
    most = max(seconds for _, seconds in samples)
    return ReplicaSeen(
        left_out=fmean(is_left_out for is_left_out, _ in samples),
        behind_s=None if math.isinf(most) else most,
    )


async def _reader(
    window: Window, database: DatabaseSettings, url: PostgresDsn, prefix: str
) -> Database | Skipped:
    settings = database.model_copy(update={"direct_url": url, "pooled": False})
    try:
        found, _ = await look_at_postgres(settings, window)
    except (NotConnected, Refused) as error:
        return gap(STATEMENTS, error, f"try psql with {prefix}URLS")
    return found


def no_reads(evidence: Evidence) -> Finding | None:
    found = seen(evidence, ReplicasSeen, NAME)
    return judged(found, evidence.database, "DATABASE_REPLICA_") if found else None


def judged(found: ReplicasSeen, primary: Database | None, prefix: str) -> Finding | None:
    """`prefix` begins the names of these replicas' variables."""
    if not found.reads and primary and is_busy_with_reads(primary):
        return Finding(
            rule="replica-unused",
            text="the replicas get no reads, and the primary is busy with them",
            do=f"remove {prefix}READS=false, once every copy of the app has {prefix}URLS",
            evidence=[busy(primary)],
        )
    for number, replica in enumerate(found.replicas, 1):
        if replica.left_out >= 0.5:
            how_far = f"it is up to {replica.behind_s or 0:.1f} s behind"
            do = "end long reads on it, then a faster disk; or copy it again"
            if replica.behind_s is None:
                how_far = "it does not answer, or follows another primary"
                do = "read why in the app's log line `a replica is out of rotation`"
            return Finding(
                rule="replica-behind",
                text=f"replica {number} gets no reads, so the primary answers them",
                do=do,
                evidence=[f"{how_far}, {replica.left_out:.0%} of the time (WAL positions)"],
            )
    return None


REPLICAS = Capability(NAME, ReplicasSeen, look, (no_reads,))
