# Rung's file: advancing to another stage may change it.
"""Replicas of modules' databases for the doctor: each is judged like one of the common database."""

import asyncio

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor.evidence import Evidence, EvidencePart
from app.infra.doctor.finding import Capability, CapabilityEvidence, Finding, Window, seen
from app.infra.module_databases import settings
from app.infra.module_databases.doctor import module_of, name_of, skipped_of, window_of
from app.infra.module_databases.replicas import settings as of_replicas
from app.infra.replicas.doctor import ReplicasSeen, judged, look_at_replicas

NAME = "replicas of modules"


class OfModules(EvidencePart):
    databases: dict[str, ReplicasSeen]  # by the database's name


async def look(window: Window) -> CapabilityEvidence | None:
    replicas = {module: of_replicas.read(module) for module in settings.with_own_database()}
    replicas = {module: one for module, one in replicas.items() if one.urls}
    if not replicas:
        return None
    common = environment.read(DatabaseSettings)
    owns = {module: settings.read(module) for module in replicas}
    found = await asyncio.gather(
        *(
            look_at_replicas(
                window_of(module, own, common, window),
                own,
                replicas[module],
                f"{settings.prefix_of(module)}REPLICA_",
            )
            for module, own in owns.items()
        )
    )
    named = dict(zip(map(name_of, replicas), found, strict=True))
    return CapabilityEvidence(
        OfModules(databases={name: lag for name, (lag, _, _) in named.items()}),
        skipped=[
            one for name, (_, _, skipped) in named.items() for one in skipped_of(name, skipped)
        ],
        readers_of={name: readers for name, (_, readers, _) in named.items()},
    )


def no_reads(evidence: Evidence) -> Finding | None:
    found = seen(evidence, OfModules, NAME)
    for name, replicas in (found.databases if found else {}).items():
        prefix = f"{settings.prefix_of(module_of(name))}REPLICA_"
        if finding := judged(replicas, evidence.others.get(name), prefix):
            return finding.model_copy(update={"text": f"{name}: {finding.text}"})
    return None


MODULE_REPLICAS = Capability(NAME, OfModules, look, (no_reads,))
