"""Merges the template's changes with the team's edits. Writes nothing."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from rung.rendering import ANSWERS_FILE
from rung.scratch import Entry, Scratch, Tree

# A step does not touch a project's migrations: one that has run must not change, and a new one
# would be a second head. When Rung's tables change, the team writes the migration: `make
# migration`. In an older repo, catalog-info.yaml may come from another tool.
_WRITTEN_WITH_THE_REPO = ("migrations/versions/", "catalog-info.yaml")


class Kind(StrEnum):
    ADDED = "added"
    CHANGED = "changed"
    MERGED = "merged"
    DELETED = "deleted"
    CONFLICT = "conflict"
    EDITED_AND_DELETED = "edited and deleted"
    """The step deletes a file that the team has edited."""
    LEFT_OUT = "left out"
    """The step changes a file that the team has removed or renamed."""


@dataclass(frozen=True)
class Change:
    kind: Kind
    yours: Entry | None
    before: Entry | None
    theirs: Entry | None
    result: Entry | None


def merge(
    scratch: Scratch,
    yours: Tree,
    before: Tree,
    theirs: Tree,
    *,
    name: str,
    written_once: Callable[[Path], bool],
) -> dict[str, Change]:
    """yours: the project. before: the template as last rendered. theirs: as the step renders it."""
    changes: dict[str, Change] = {}
    for path in sorted(before.keys() | theirs.keys()):
        if path.startswith(_WRITTEN_WITH_THE_REPO):
            continue
        sides = yours.get(path), before.get(path), theirs.get(path)
        if path == ANSWERS_FILE and sides[0] and sides[0].is_file:
            sides = sides[0], sides[0], sides[2]
        elif written_once(Path(path)):
            if sides[0]:
                continue
            sides = None, None, sides[2]
        if change := _change(scratch, name, *sides):
            changes[path] = change
    return changes


def _change(
    scratch: Scratch,
    name: str,
    yours: Entry | None,
    before: Entry | None,
    theirs: Entry | None,
) -> Change | None:
    if theirs in (before, yours):
        return None

    def change(kind: Kind, result: Entry | None) -> Change:
        return Change(kind, yours, before, theirs, result)

    if theirs is None:
        return change(Kind.DELETED if yours == before else Kind.EDITED_AND_DELETED, None)
    if yours is None:
        return change(Kind.LEFT_OUT, None) if before else change(Kind.ADDED, theirs)
    if yours == before:
        return change(Kind.CHANGED, theirs)
    result, clean = scratch.merge(yours, before, theirs, name)
    return change(Kind.MERGED if clean else Kind.CONFLICT, result)
