"""What a step would make of a project: Copier renders, git merges, nothing is written."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rung import git, stages
from rung.answers import Answer
from rung.errors import RungError
from rung.locking import lock
from rung.merge import Change, Kind, merge
from rung.origin import Origin
from rung.progress import working
from rung.project import Project, shown
from rung.recorded import (
    never_asked,
    refuse_changed,
    refuse_edited_by_hand,
    refuse_unasked,
    spoken,
)
from rung.rendering import Rendered, render_again
from rung.scratch import Entry, Scratch, Tree
from rung.switch import Move


@dataclass(frozen=True)
class Target:
    """Where a step leads: a stage, or a version."""

    name: str
    stage: int
    ref: str | None = None
    skipped: Sequence[stages.Stage] = ()


@dataclass(frozen=True)
class Outcome:
    project: Project
    target: Target
    changes: Mapping[str, Change]
    line_counts: Mapping[str, tuple[int, int]]
    notes: Sequence[str]
    tree: str
    diff: Callable[[], str] = field(repr=False)

    @property
    def stays(self) -> bool:
        """At its stage and its version: only answers change."""
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


def work_out(
    project: Project,
    origin: Origin,
    target: Target,
    given: Mapping[str, Answer],
    scratch: Scratch,
) -> Outcome:
    with working("Rendering"):
        asked = {**given, "stage": target.stage}
        new = render_again(
            scratch.folder / "new", _recorded(project, origin), ref=target.ref, given=asked
        )
        # What a new version leaves out at all stages is not deleted, only no longer looked after.
        # Copier would take the other patterns too, and fail where they name a new question.
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
        kept=new.kept,
    )
    _refuse_blocked(project.folder, changes)
    tree = scratch.tree(tree_now, _results(changes))
    if _needs_lock(changes, yours):
        with working("Locking dependencies"):
            notes += _relock(scratch, tree, changes)
        tree = scratch.tree(tree_now, _results(changes))
    return Outcome(
        project,
        target,
        changes,
        scratch.line_counts(tree_now, tree),
        notes,
        tree,
        lambda: scratch.diff(tree_now, tree),
    )


def check_answers(project: Project, origin: Origin, scratch: Scratch) -> None:
    """Refuse answers that are not the truth about the files."""
    with working("Rendering"):
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
    refuse_edited_by_hand(project, recorded, yours, before, scratch)
    return before


def _refuse_answers(
    project: Project, target: Target, given: Mapping[str, Answer], new: Rendered
) -> list[str]:
    """Answers with what to say of the questions whose default was taken."""
    refuse_changed(project, given, new, target.name)
    questions = never_asked(project, given, new)
    if questions and target.ref:
        refuse_unasked(questions, new, target.name)
    return [
        f"{key}: {spoken(new.public[key])} is the default; --data {key}=… says otherwise."
        for key in questions
    ]


def _needs_lock(changes: Mapping[str, Change], yours: Tree) -> bool:
    project = changes.get("pyproject.toml")
    changed = project is not None and project.kind in {Kind.CHANGED, Kind.MERGED}
    return changed and "uv.lock" in yours


def _results(changes: Mapping[str, Change]) -> dict[str, Entry | None]:
    return {
        path: change.result for path, change in changes.items() if change.yours != change.result
    }


def _relock(scratch: Scratch, tree: str, changes: dict[str, Change]) -> list[str]:
    folder = scratch.folder / "to-lock"
    scratch.check_out(tree, folder)
    if failure := lock(folder):
        return [f"Dependencies are not locked ({failure}): run `uv lock` there."]
    yours = scratch.entries(tree)["uv.lock"]
    locked = Entry(yours.mode, scratch.store((folder / "uv.lock").read_bytes()))
    if locked != yours:
        changes["uv.lock"] = Change(Kind.CHANGED, yours, yours, locked, locked)
    return []


def _refuse_blocked(folder: Path, changes: Mapping[str, Change]) -> None:
    added = [path for path, change in changes.items() if change.result and not change.yours]
    if inside := [path for path in added if _in_the_way(folder, path)]:
        raise RungError(
            f"The step brings {shown(inside)}, and something of yours that is not committed lies "
            "there. Move it away, or commit it to have it merged."
        )


def _in_the_way(folder: Path, path: str) -> bool:
    if os.path.lexists(folder / path):
        return True
    parents = [folder / parent for parent in Path(path).parents]
    return any(os.path.lexists(p) and (p.is_symlink() or not p.is_dir()) for p in parents[:-1])
