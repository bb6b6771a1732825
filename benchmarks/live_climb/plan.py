"""All steps of a climb in order, and where it stands, in a file that outlives a kill."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import journey
from kills import Fault, faults_at
from ledger import Counts, Times
from runbook import Block

QUIET = ", nothing happens"


class ResumeError(Exception):
    """Says why a climb cannot go on."""


@dataclass(frozen=True)
class Step:
    """Without an action nothing happens, as on most days."""

    name: str
    action: Block | Fault | None = None
    merged: str = ""  # the commit of the advance that the team merges before it
    reverted: str = ""  # the commit of the advance that is undone


@dataclass
class Stand:
    """Written before and after each step."""

    file: Path
    top: int
    visitors: int
    rate: float
    requests: int
    faults: str  # a pattern of what happens, or nothing does
    reads: int = 1
    total: int = 0
    is_yielding: bool = False
    first: str = ""
    advances: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    next: int = 0  # the index of a step
    is_begun: bool = False
    head: str = ""  # of the repo, before that step
    done: list[Counts] = field(default_factory=list)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Raises ResumeError."""
        file = folder / "stand.json"
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
        except OSError:
            raise ResumeError(
                f"Cannot go on: there is no {file}. Give the folder that a climb named when it"
                " stopped. Before its first step it cannot go on: start a new one."
            ) from None
        done = [
            Counts(**one | {"milliseconds": Times.of(one["milliseconds"])})
            for one in kept.pop("done")
        ]
        return cls(file, **kept, done=done)

    def requests_of_a_quiet_step(self) -> int:
        """The quiet steps share the total, so that each of its parts is as long."""
        quiet = sum(one.name.endswith(QUIET) for one in self.done)
        until_now = sum(len(one.milliseconds) for one in self.done)
        of_all = 2 * self.top - 1
        return max(self.requests, self.total * (quiet + 1) // of_all - until_now)

    def write(self) -> None:
        kept = asdict(self)
        del kept["file"]
        for one in kept["done"]:
            one["milliseconds"] = list(one["milliseconds"].counted.items())
        new = self.file.with_suffix(".new")
        new.write_text(json.dumps(kept), encoding="utf-8")
        new.replace(self.file)


def steps_of(repo: Path, stand: Stand) -> list[Step]:
    """Up to the top and back. A page is gone once its advance is reverted, so all are read here."""
    up = _stays(1, stand)
    back: list[Step] = []
    legs = [leg for leg in journey.LEGS if leg.stage <= stand.top]
    for leg, advance in zip(legs, stand.advances, strict=True):
        journey.take(repo, advance)
        merged = advance
        for one in journey.steps(repo, leg, back=False):
            up.append(Step(one.name, one, merged=merged))
            merged = ""
        up += _stays(leg.stage, stand)
        way_back = [
            Step(one.name, one, reverted=advance) for one in journey.steps(repo, leg, back=True)
        ]
        back = [*way_back, Step(f"stage {leg.stage - 1} again{QUIET}"), *back]
    return up + back


def refuse_out_of_order(steps: Sequence[Step], stand: Stand) -> None:
    """Raises ResumeError when an earlier step was not taken, or a change of servers was cut."""
    done = {one.name for one in stand.done}
    missing = [one.name for one in steps[: stand.next] if one.name not in done]
    if missing or stand.next > len(steps):
        why = f"{missing[0]!r} was not done" if missing else f"there are {len(steps)} steps"
        raise ResumeError(
            f"Cannot go on with step {stand.next + 1}: {why}. The runbooks or {stand.file} may have"
            " changed since. Start a new climb."
        )
    cut = steps[stand.next].action if stand.is_begun else None
    if isinstance(cut, Fault) and (cut.failover or cut.exchanged):
        raise ResumeError(
            f"Cannot go on: {cut.name!r} was cut, and its runbook has no way back. Start a new"
            " climb."
        )


def begin_again(steps: Sequence[Step], stand: Stand) -> list[Block]:
    """A section that was cut begins again: its way back as far as it goes, then its first step.

    Returns the commands of that way back.
    """
    cut = steps[stand.next].action
    if not stand.is_begun or not isinstance(cut, Block) or cut.part == "back":
        return []

    def is_same(step: Step, part: str) -> bool:
        of = step.action
        return (
            isinstance(of, Block)
            and (of.page, of.section) == (cut.page, cut.section)
            and (of.part == "back") == (part == "back")
        )

    undone = [one.action for one in steps if is_same(one, "back")]
    if undone:
        stand.next = next(n for n, one in enumerate(steps) if is_same(one, "do"))
    return [one for one in undone if isinstance(one, Block)]


def _stays(stage: int, stand: Stand) -> list[Step]:
    faults = faults_at(stage, stand.top, stand.faults) if stand.faults else []
    quiet = Step(f"stage {stage}{QUIET}")
    return [quiet, *(Step(one.name, one) for one in faults)]
