"""Plans a step: Copier renders, git merges, and no file of the project is written."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung import git, stages
from rung.answers import Answer
from rung.answers_check import (
    differing,
    in_words,
    never_asked,
    refuse_changed,
    refuse_edited_by_hand,
    refuse_unasked,
)
from rung.apply import Move
from rung.dependencies import lock_dependencies, not_locked
from rung.errors import RungError, shown
from rung.imports import importers
from rung.merge import Change, Kind, merge
from rung.origin import Origin
from rung.progress import spinner
from rung.project import Project, refuse_unready
from rung.rendering import ANSWERS_FILE, Rendered, render_again
from rung.scratch import Entry, Scratch, Tree


@dataclass(frozen=True)
class Target:
    """The stage or the version that a step leads to."""

    name: str
    stage: int
    ref: str | None = None
    skipped: Sequence[stages.Stage] = ()


@dataclass(frozen=True)
class Plan:
    project: Project
    target: Target
    changes: Mapping[str, Change]
    line_counts: Mapping[str, tuple[int, int]]
    notes: Sequence[str]
    lock_failure: str | None
    tree_now: str
    tree: str
    diff: Callable[[bool], str] = field(repr=False)
    """Returns the changed lines as text, coloured if the argument is true."""

    @property
    def changes_answers_only(self) -> bool:
        """The project keeps its stage and its version."""
        return not self.target.ref and self.target.stage == self.project.stage

    def of(self, *kinds: Kind) -> list[str]:
        return [path for path, change in self.changes.items() if change.kind in kinds]

    @property
    def lost(self) -> list[str]:
        return self.of(Kind.EDITED_AND_DELETED)

    @property
    def conflicts(self) -> list[str]:
        return self.of(Kind.CONFLICT)

    @property
    def moves(self) -> list[Move]:
        return [
            Move(path, change.yours, change.result)
            for path, change in self.changes.items()
            if change.yours != change.result
        ]


def make_plan(
    project: Project,
    origin: Origin,
    target: Target,
    given: Mapping[str, Answer],
    scratch: Scratch,
) -> Plan:
    with spinner("Rendering"):
        asked = {**given, "stage": target.stage}
        new = render_again(
            scratch.folder / "new", _recorded(project, origin), ref=target.ref, given=asked
        )
        # A file that a new version excludes at all stages stays in the project. Patterns with an
        # expression are left out: they may name a question that the old version does not have.
        excludes = [pattern for pattern in new.excludes if "{" not in pattern]
        tree_now = _tree_now(project)
        yours = scratch.entries(tree_now)
        before = _before(project, origin, scratch, yours, excludes)
    notes = _refuse_answers(project, target, given, new)
    changes = merge(
        scratch,
        yours,
        before,
        scratch.read_folder(new.folder),
        name=target.name,
        written_once=new.written_once,
    )
    _refuse_blocked(project.folder, changes)
    _refuse_imported(project, target, given, changes)
    tree = scratch.tree(tree_now, _results(changes))
    lock_failure = None
    if _needs_lock(changes, yours):
        with spinner("Locking dependencies"):
            lock_failure = _relock(scratch, tree, changes)
        tree = scratch.tree(tree_now, _results(changes))
    return Plan(
        project,
        target,
        changes,
        scratch.line_counts(tree_now, tree),
        notes + ([not_locked(lock_failure)] if lock_failure else []),
        lock_failure,
        tree_now,
        tree,
        lambda colour: scratch.diff(tree_now, tree, colour=colour),
    )


def refuse_stale(plan: Plan) -> None:
    """Refuses if the person has changed the project since it was read, such as at the question."""
    refuse_unready(plan.project)
    if _tree_now(plan.project) != plan.tree_now:
        raise RungError(
            f"{plan.project.folder} has another commit since the step was planned, so nothing was "
            "changed. Run this again."
        )
    _refuse_blocked(plan.project.folder, plan.changes)


def check_answers(project: Project, origin: Origin, scratch: Scratch) -> None:
    """Refuse recorded answers that do not match the files."""
    with spinner("Rendering"):
        _before(project, origin, scratch, scratch.entries(_tree_now(project)), ())


def _recorded(project: Project, origin: Origin) -> dict[str, Any]:
    return {**project.answers, "_src_path": origin.src}


def _tree_now(project: Project) -> str:
    prefix = git.git("rev-parse", "--show-prefix", cwd=project.folder)
    return git.git("rev-parse", f"HEAD:{prefix}", cwd=project.folder)


def _before(
    project: Project, origin: Origin, scratch: Scratch, yours: Tree, excludes: Sequence[str]
) -> Tree:
    recorded = _recorded(project, origin)
    old = render_again(scratch.folder / "old", recorded, excludes=excludes)
    before = scratch.read_folder(old.folder)
    refuse_edited_by_hand(project, recorded, old, yours, before, scratch)
    return before


def _refuse_answers(
    project: Project, target: Target, given: Mapping[str, Answer], new: Rendered
) -> list[str]:
    """Returns a note for each question whose default was taken, and for each lost answer."""
    refuse_changed(project, given, new, target.name)
    questions = never_asked(project, given, new)
    if questions and target.ref:
        refuse_unasked(questions, new, target.name)
    notes = [
        f"{key}: {in_words(new.public[key])} is the default; change it with --data {key}=…"
        for key in questions
    ]
    return notes + [
        f"{key} is removed from {ANSWERS_FILE}: {target.name} does not ask for it."
        for key in sorted(project.answers.keys() - new.answers.keys())
    ]


def _needs_lock(changes: Mapping[str, Change], yours: Tree) -> bool:
    project = changes.get("pyproject.toml")
    changed = project is not None and project.kind in {Kind.CHANGED, Kind.MERGED}
    return changed and "uv.lock" in yours


def _results(changes: Mapping[str, Change]) -> dict[str, Entry | None]:
    return {
        path: change.result for path, change in changes.items() if change.yours != change.result
    }


def _relock(scratch: Scratch, tree: str, changes: dict[str, Change]) -> str | None:
    folder = scratch.folder / "to-lock"
    scratch.check_out(tree, folder)
    if failure := lock_dependencies(folder):
        return failure
    yours = scratch.entries(tree)["uv.lock"]
    locked = Entry(yours.mode, scratch.store((folder / "uv.lock").read_bytes()))
    if locked != yours:
        changes["uv.lock"] = Change(Kind.CHANGED, yours, yours, locked, locked)
    return None


def _refuse_blocked(folder: Path, changes: Mapping[str, Change]) -> None:
    added = [path for path, change in changes.items() if change.result and not change.yours]
    if inside := [path for path in added if _in_the_way(folder, path)]:
        raise RungError(
            f"The step adds {shown(inside)}, but an uncommitted file or folder is in its place. "
            "Move it away, or commit it so that it is merged."
        )


def _refuse_imported(
    project: Project, target: Target, given: Mapping[str, Answer], changes: Mapping[str, Change]
) -> None:
    """Refuses if the team's code imports a file that the step deletes."""
    if target.ref and not project.answers.keys() & differing(project, given):
        return  # A new version has moved the file: only an edit afterwards helps.
    gone = (path for path, change in changes.items() if change.yours and not change.result)
    there = (path for path, change in changes.items() if change.result)
    if files := list(importers(project.folder, gone, there)):
        alone = "Upgrade without --data first. " if target.ref else ""
        raise RungError(
            f"The step to {target.name} deletes files that your code imports: {shown(files, 20)}. "
            f"{alone}If you need such a file to reach some of your data, such as a module's tables "
            "in their own database, bring the data back first. Then remove the imports, and "
            "commit. Nothing was changed."
        )


def _in_the_way(folder: Path, path: str) -> bool:
    if os.path.lexists(folder / path):
        return True
    parents = [folder / parent for parent in Path(path).parents]
    return any(os.path.lexists(p) and (p.is_symlink() or not p.is_dir()) for p in parents[:-1])
