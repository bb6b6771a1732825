# Rung's file: advancing to another stage may change it.
"""The own databases of modules for the doctor: each is judged by its own numbers."""

import asyncio

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor.capacity import CAPACITY, processors
from app.infra.doctor.evidence import Database, Evidence, EvidencePart, Skipped
from app.infra.doctor.finding import (
    BUSY,
    Capability,
    CapabilityEvidence,
    Finding,
    Window,
    busy,
    is_busy_with_reads,
    read_share,
)
from app.infra.doctor.looking import Refused, gap, look_at_postgres
from app.infra.failures import NotConnected
from app.infra.module_databases import settings

NAME = "databases of modules"


async def look(window: Window) -> CapabilityEvidence | None:
    modules = settings.named()
    if not modules:
        return None
    common = environment.read(DatabaseSettings)
    found = await asyncio.gather(*(_database(module, common, window) for module in modules))
    names = [f"database of {module}" for module in modules]
    return CapabilityEvidence(
        None,
        skipped=[
            one.model_copy(update={"source": f"{one.source} of the {name}"})
            for name, (_, skipped) in zip(names, found, strict=True)
            for one in skipped
        ],
        others={name: one for name, (one, _) in zip(names, found, strict=True) if one is not None},
    )


async def _database(
    module: str, common: DatabaseSettings, window: Window
) -> tuple[Database | None, list[Skipped]]:
    own = settings.read(module)
    cpus = window.processors if _one_server(own, common) else processors(own, "module_cpus", module)
    try:
        return await look_at_postgres(own, window.seconds, cpus, lambda _: None)
    except (NotConnected, Refused) as error:
        return None, [gap("sessions", error, f"try psql with {settings.prefix_of(module)}URL")]


def _one_server(own: DatabaseSettings, common: DatabaseSettings) -> bool:
    return own.direct_url.hosts() == common.direct_url.hosts()


def processors_not_known(evidence: Evidence) -> Finding | None:
    for name, database in evidence.others.items():
        if not database.processors and database.on_processor >= BUSY:
            return Finding(
                rule="not-known",
                text=f"{name}: {database.on_processor:.1f} sessions keep a processor busy",
                do=f"say in {CAPACITY} how many it has: module_cpus",
            )
    return None


def reads(evidence: Evidence) -> Finding | None:
    for name, database in evidence.others.items():
        if is_busy_with_reads(database):
            return Finding(
                rule="module-reads",
                text=f"{name}: its processor is busy with reads",
                do="a larger machine; then a replica of it, with the option replica_routing",
                evidence=[f"{busy(database)}; {read_share(database):.0%} of its time is reads"],
            )
    return None


MODULES = Capability(NAME, EvidencePart, look, (processors_not_known, reads))
