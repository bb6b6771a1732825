# Rung's file: advancing to another stage may change it.
"""The own databases of modules for the doctor: each is judged by its own numbers."""

import asyncio
import math
import os
import tomllib
from pathlib import Path

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.doctor.evidence import Database, Evidence, EvidencePart, Skipped
from app.infra.doctor.finding import Capability, CapabilityEvidence, Finding, Window
from app.infra.doctor.looking import Refused, look_at_postgres
from app.infra.failures import NotConnected
from app.infra.module_databases import settings

NAME = "databases of modules"
LOCAL = {"localhost", "127.0.0.1", "::1", None}
CAPACITY = Path("deploy/capacity.toml")
BUSY = 0.7  # of its processors


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
    cpus = window.processors if _one_server(own, common) else _processors(module, own)
    try:
        return await look_at_postgres(own, window.seconds, cpus, lambda _: None)
    except (NotConnected, Refused) as error:
        why = " ".join(str(error).split()) or "no connection was left"
        remedy = f"try psql with {settings.prefix_of(module)}URL"
        return None, [Skipped(source="sessions", why=why, remedy=remedy)]


def _one_server(own: DatabaseSettings, common: DatabaseSettings) -> bool:
    return own.direct_url.hosts() == common.direct_url.hosts()


def _processors(module: str, own: DatabaseSettings) -> int | None:
    if all(host["host"] in LOCAL for host in own.direct_url.hosts()):
        return os.cpu_count()
    try:
        found = tomllib.loads(CAPACITY.read_text()).get("module_cpus", {}).get(module)
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) and found > 0 else None


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
        share = sum(one.share for one in database.statements or [] if one.is_read)
        busy = database.on_processor / (database.processors or math.inf)
        if busy >= BUSY and share >= 0.6:
            return Finding(
                rule="module-reads",
                text=f"{name}: its processor is busy with reads",
                do="a larger machine: a module's own database has neither replicas nor a cache",
                evidence=[
                    f"{database.on_processor:.1f} sessions keep {database.processors} processors"
                    f" busy (pg_stat_activity); {share:.0%} of its time is reads"
                ],
            )
    return None


MODULES = Capability(NAME, EvidencePart, look, (processors_not_known, reads))
