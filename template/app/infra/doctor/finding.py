# Rung's file: advancing to another stage may change it.
"""A rule's conclusion, and the interface through which a capability extends the doctor."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from pydantic import BaseModel

from app.infra.doctor.evidence import Database, Evidence, EvidencePart, Skipped

BUSY = 0.7


class Finding(BaseModel):
    rule: str
    text: str
    do: str
    evidence: list[str] = []
    advance_to: int | None = None

    @property
    def runbook(self) -> str:
        return f"docs/guide/doctor.md#{self.rule}"


class Judgement(BaseModel):
    verdict: Finding
    also: list[Finding] = []

    @property
    def is_undecided(self) -> bool:
        return self.verdict.rule in ("not-known", "too-little-evidence")

    def exit_code(self, evidence: Evidence) -> int:
        if self.verdict.advance_to:
            return 4
        if self.verdict.rule == "stay":
            return 3 if evidence.skipped else 0
        return 3 if self.is_undecided else 1


type Rule = Callable[[Evidence], Finding | None]


class Missing(Exception):
    """The source cannot be read. `remedy` is the command that makes it readable."""

    def __init__(self, why: str, remedy: str) -> None:
        super().__init__(why)
        self.why = " ".join(why.split())
        self.remedy = remedy

    def skipped(self, source: str) -> Skipped:
        return Skipped(source=source, why=self.why, remedy=self.remedy)


class CapabilityEvidence(NamedTuple):
    """`readers` are servers that answer reads in the primary's place. `others` are the databases of
    modules, by name. `readers_of` are the readers of each."""

    seen: EvidencePart | None
    readers: Sequence[Database] = ()
    skipped: Sequence[Skipped] = ()
    others: Mapping[str, Database] = {}
    readers_of: Mapping[str, list[Database]] = {}


class Window(NamedTuple):
    seconds: float
    processors: int | None


class Capability(NamedTuple):
    """`look` takes the whole window. It gives None if the capability is not in use."""

    name: str
    model: type[EvidencePart]
    look: Callable[[Window], Awaitable[CapabilityEvidence | None]]  # raises Missing
    rules: tuple[Rule, ...]


def seen[PartT: EvidencePart](evidence: Evidence, model: type[PartT], name: str) -> PartT | None:
    found = evidence.capabilities.get(name)
    return None if found is None else model.model_validate(found)


def is_busy(database: Database) -> bool:
    """True from 70% of its processors, counted by the sessions that wait for nothing."""
    return bool(database.processors and database.on_processor >= BUSY * database.processors)


def is_busy_with_reads(database: Database) -> bool:
    return is_busy(database) and read_share(database) >= 0.6


def read_share(database: Database) -> float:
    return sum(one.share for one in database.statements or [] if one.is_read)


def busy(database: Database) -> str:
    return (
        f"{database.on_processor:.1f} sessions keep {database.processors} processors busy"
        " (pg_stat_activity)"
    )


def keeps_idle(database: Database | None) -> bool:
    """True if its processors are less than half busy, so requests wait for another reason."""
    return bool(database and database.on_processor < 0.5 * (database.processors or 1))
