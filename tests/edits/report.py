"""Takes every edit alone and every group over every journey, and writes docs/edits.md."""

import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from carrying import in_process
from conftest import working_tree
from copier import run_copy
from people import Machine
from plumbum import local
from variants import JOURNEYS, LONGEST, STEP_BY_STEP, described

from edits.carried import carry
from edits.corpus import EDITS, EVERYWHERE, GROUPS, Edit

REPORT = Path(__file__).parents[2] / "docs" / "edits.md"

HEAD = """\
# A team's edits on every journey

`make edits-report` makes each of these edits in a repo and takes the repo to the last stage. Groups
of edits go there at once and step by step. Two groups take each of the journeys below. Then it
counts conflicts and losses: edits that are gone or moved, other files of the team that changed,
missing files of the stage, a second head of the migrations. It writes this page. The edits are in
`tests/edits/`.
"""


@dataclass(frozen=True)
class Run:
    """Indexes into the corpus and the journeys, because those can be sent to a process."""

    group: str | None
    edit: int
    journey: int

    @property
    def edits(self) -> list[Edit]:
        return [EDITS[self.edit]] if self.group is None else GROUPS[self.group]


@dataclass(frozen=True)
class Row:
    label: str
    edits: int
    runs: int
    conflicts: int
    losses: int


def all_runs() -> list[Run]:
    at_once, step_by_step = map(JOURNEYS.index, (LONGEST, STEP_BY_STEP))
    alone = [Run(None, edit, at_once) for edit in range(len(EDITS))]
    return alone + [
        Run(group, 0, journey)
        for group in GROUPS
        for journey in (range(len(JOURNEYS)) if group in EVERYWHERE else (at_once, step_by_step))
    ]


def label(run: Run) -> str:
    return run.group or EDITS[run.edit].topic.replace("_", " ")


def rows(outcomes: dict[Run, tuple[int, int]]) -> Iterator[Row]:
    for name, runs in groupby(outcomes, key=label):
        same = list(runs)
        edits = len({run.edit for run in same}) if same[0].group is None else len(same[0].edits)
        conflicts, losses = (sum(outcomes[run][i] for run in same) for i in (0, 1))
        yield Row(name, edits, len(same), conflicts, losses)


def written(table: list[Row]) -> str:
    alone = [row for row in table if row.label not in GROUPS]
    total = Row("**all**", *(sum(c) for c in zip(*map(numbers, alone), strict=True)))
    together = [row for row in table if row.label in GROUPS]
    topics = "".join(
        f"\n## {topic.replace('_', ' ').capitalize()}\n\n{''.join(f'- {e.name}\n' for e in edits)}"
        for topic, edits in groupby(EDITS, key=lambda one: one.topic)
    )
    journeys = "".join(f"- {described(journey)}\n" for journey in JOURNEYS)
    return (
        f"{HEAD}\n## Each alone\n\n{lines([*alone, total])}\n## Together\n\n{lines(together)}\n"
        f"## Journeys\n\n{journeys}{topics}"
    )


def numbers(row: Row) -> tuple[int, int, int, int]:
    return row.edits, row.runs, row.conflicts, row.losses


def lines(table: list[Row]) -> str:
    head = "| | edits | runs | conflicts | losses |\n|---|--:|--:|--:|--:|\n"
    body = (f"| {row.label} | {' | '.join(map(str, numbers(row)))} |\n" for row in table)
    return head + "".join(body)


def carried(run: Run, renders: Path) -> tuple[int, int]:
    journey = JOURNEYS[run.journey]
    made, fresh = (renders / described((end,)) for end in (journey[0], journey[-1]))
    with tempfile.TemporaryDirectory() as folder:
        outcome = carry(made, fresh, Path(folder, "shop"), run.edits, journey, in_process)
    for found in [*outcome.conflicts, *outcome.losses]:
        print(f"{label(run)} / {run.edits[0].name} / {described(journey)}: {found}", flush=True)
    return len(outcome.conflicts), len(outcome.losses)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        renders = prepared(Path(folder))
        runs = all_runs()
        with ProcessPoolExecutor() as pool:
            found = list(pool.map(carried, runs, [renders] * len(runs), chunksize=8))
    outcomes = dict(zip(runs, found, strict=True))
    REPORT.write_text(written(list(rows(outcomes))))
    print(Counter(found), f"written to {REPORT.name}")


def prepared(folder: Path) -> Path:
    """Renders both ends of each journey, apart from this machine's configuration."""
    os.environ |= Machine.made_in(folder).environment
    template = working_tree(folder / "rung")
    renders = folder / "renders"
    for end in [end for journey in JOURNEYS for end in (journey[0], journey[-1])]:
        if not (renders / described((end,))).exists():
            with local.env(**os.environ):
                run_copy(
                    str(template), renders / described((end,)), data=end, defaults=True, quiet=True
                )
    return renders


if __name__ == "__main__":
    main()
