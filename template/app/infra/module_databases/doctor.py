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
from app.infra.pooling.connections import server_name

NAME = "databases of modules"
DATABASE_OF = "database of "


async def look(window: Window) -> CapabilityEvidence | None:
    modules = settings.with_own_database()
    if not modules:
        return None
    common = environment.read(DatabaseSettings)
    looks = await asyncio.gather(*(_database(module, common, window) for module in modules))
    found = dict(zip(map(name_of, modules), looks, strict=True))
    return CapabilityEvidence(
        None,
        skipped=[one for name, (_, skipped) in found.items() for one in skipped_of(name, skipped)],
        others={name: database for name, (database, _) in found.items() if database},
    )


def name_of(module: str) -> str:
    return f"{DATABASE_OF}{module}"


def module_of(name: str) -> str:
    return name.removeprefix(DATABASE_OF)


def skipped_of(name: str, skipped: list[Skipped]) -> list[Skipped]:
    return [one.model_copy(update={"source": f"{one.source} of the {name}"}) for one in skipped]


async def _database(
    module: str, common: DatabaseSettings, window: Window
) -> tuple[Database | None, list[Skipped]]:
    own = settings.read(module)
    try:
        return await look_at_postgres(own, window_of(module, own, common, window))
    except (NotConnected, Refused) as error:
        return None, [gap("sessions", error, f"try psql with {settings.prefix_of(module)}URL")]


def window_of(
    module: str, own: DatabaseSettings, common: DatabaseSettings, window: Window
) -> Window:
    """With the processors of the module's server."""
    if server_name(own.direct_url) == server_name(common.direct_url):
        return window
    return window._replace(processors=processors(own, "module_cpus", module))


def processors_not_known(evidence: Evidence) -> Finding | None:
    for name, own in evidence.of_others():
        for server in own.servers:
            if not server.processors and server.on_processor >= BUSY:
                return Finding(
                    rule="not-known",
                    text=f"{name}: {server.on_processor:.1f} sessions keep a processor busy",
                    do=f"say in {CAPACITY} how many processors it has: module_cpus",
                )
    return None


def reads(evidence: Evidence) -> Finding | None:
    for name, own in evidence.of_others():
        for server in filter(is_busy_with_reads, own.servers):
            more = "one more replica" if own.readers else "a replica"
            return Finding(
                rule="module-reads",
                text=f"{name}: its processor is busy with reads",
                do=f"a larger machine; then {more} of this database (option replica_routing)",
                evidence=[f"{busy(server)}; {read_share(server):.0%} of its time is reads"],
            )
    return None


MODULES = Capability(NAME, EvidencePart, look, (processors_not_known, reads))
