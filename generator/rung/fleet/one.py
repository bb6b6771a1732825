"""Upgrades one clone in its own process, because Rung sets environment variables for git."""

import json
import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

from rung.advance import NothingToDoError, Options, upgrade
from rung.answers import Answer
from rung.answers_check import UnaskedError
from rung.errors import RungError, shown
from rung.interrupts import Interrupts
from rung.plan import Plan
from rung.report import Conversation


@dataclass(frozen=True)
class _PlanKeeper(Conversation):
    """Keeps the plan that a person would see."""

    plans: list[Plan] = field(default_factory=list)

    def show(self, plan: Plan) -> None:
        self.plans.append(plan)


def main() -> None:
    """Writes the kind of the outcome and its words, as JSON."""
    clone, version, dry_run, given = json.loads(sys.argv[1])
    with redirect_stdout(sys.stderr):
        outcome = _outcome(Path(clone), version, given, dry_run=dry_run)
    print(json.dumps(outcome))


def _outcome(
    clone: Path, version: str, given: Mapping[str, Answer], *, dry_run: bool
) -> tuple[str, str]:
    person = _PlanKeeper(ask=False, dry_run=dry_run, diff=False)
    interrupts = Interrupts()

    def take(answers: Mapping[str, Answer]) -> None:
        options = Options(answers, None, commit=not dry_run, keep_conflicts=False)
        upgrade(clone, version, options, person, interrupts)

    try:
        try:
            take({})
        except UnaskedError as asked:
            if missing := [f"--data {key}=…" for key in asked.questions if key not in given]:
                return "refused", f"{version} has new questions. Add {' '.join(missing)}"
            # Only these: another answer would change what a team has chosen.
            take({key: given[key] for key in asked.questions})
    except NothingToDoError as nothing:
        return "newest", str(nothing)
    except RungError as error:
        plan = person.plans[-1] if person.plans else None
        if plan is None or plan.lost or not plan.conflicts:
            return "refused", str(error)
        files = f"{shown(plan.conflicts, most=50)}. Both you and the step changed the same lines."
        return "conflict", f"{files} Run there: rung upgrade --keep-conflicts"
    if failure := person.plans[-1].lock_failure:
        return "refused", f"Dependencies are not locked ({failure})"
    return "merges", ""


if __name__ == "__main__":
    main()
