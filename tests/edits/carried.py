"""One run: edit a repo, advance it, and compare."""

import shutil
import tomllib
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import yaml
from carrying import Way, advance
from people import git
from variants import Journey
from wall import everything, rungs_own, teams_own

from edits.corpus import Edit
from edits.migrations import heads

MARKERS = (b"<<<<<<< ", b">>>>>>> ")


@dataclass
class Outcome:
    conflicts: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)


def carry(
    made: Path, fresh: Path, project: Path, edits: Iterable[Edit], journey: Journey, way: Way
) -> Outcome:
    """`made` and `fresh` are renders of the journey's two ends. `project` is written."""
    shutil.copytree(made, project, symlinks=True)
    git("init", "--quiet", "--initial-branch=main", cwd=project)
    commit(project, "As it began")
    checks = [(one.name, one.made(project)) for one in edits]
    # The template cannot separate edits that the team made in Rung's own files.
    edited = {name for name, _ in rungs_own(project).items() ^ rungs_own(made).items()}
    commit(project, "A year of work")
    before = teams_own(project)

    outcome = Outcome()
    for variant in journey[1:]:
        advance(project, variant, way)
        outcome.conflicts += conflicts(project)
        commit(project, "Another stage")

    for name, steps in checks:
        try:
            with suppress(StopIteration):
                next(steps)
        except (AssertionError, OSError, tomllib.TOMLDecodeError, yaml.YAMLError) as lost:
            outcome.losses.append(f"{name}: {lost}")
    outcome.losses += changes(before, teams_own(project))
    expected = {n: found for n, found in rungs_own(fresh).items() if n not in edited}
    actual = {n: found for n, found in rungs_own(project).items() if n not in edited}
    outcome.losses += changes(expected, actual)
    if len(heads(project)) != 1:
        outcome.losses.append(f"the migrations have {len(heads(project))} heads")
    return outcome


def commit(project: Path, message: str) -> None:
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--allow-empty", f"--message={message}", cwd=project)


def conflicts(project: Path) -> list[str]:
    unmerged = git("ls-files", "--unmerged", "-z", cwd=project).split("\0")
    found = {entry.partition("\t")[2] for entry in unmerged if entry}
    for name, (_, data) in everything(project).items():
        if name.endswith(".rej") or any(line.startswith(MARKERS) for line in data.splitlines()):
            found.add(name)
    return sorted(found)


def changes[T](before: dict[str, T], after: dict[str, T]) -> list[str]:
    return [
        f"{'gone' if name not in after else 'come' if name not in before else 'changed'}: {name}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]
