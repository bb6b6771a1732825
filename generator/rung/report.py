"""What a step would do, or did, in words for a person."""

import os
import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rung.errors import RungError
from rung.git import GitError, git_list
from rung.merge import Kind
from rung.outcome import Outcome
from rung.project import shown
from rung.stages import LADDER

_ORDER = (
    Kind.ADDED,
    Kind.CHANGED,
    Kind.MERGED,
    Kind.DELETED,
    Kind.LEFT_OUT,
    Kind.EDITED_AND_DELETED,
    Kind.CONFLICT,
)

_WORDS = {
    Kind.MERGED: "changed by you and by the step",
    Kind.LEFT_OUT: "removed or renamed by you, changed by the step: nothing is carried over",
    Kind.EDITED_AND_DELETED: "edited by you, deleted by the step",
    Kind.CONFLICT: "the same lines changed by you and by the step",
}


@dataclass(frozen=True)
class Conversation:
    ask: bool
    dry_run: bool
    diff: bool

    def show(self, outcome: Outcome) -> None:
        print(f"{_heading(outcome)}\n\n{_table(outcome)}\n")
        for note in outcome.notes:
            print(note)
        if self.diff:
            print(outcome.diff())
        sys.stdout.flush()

    def agree(self, outcome: Outcome) -> bool:
        if self.dry_run:
            print("A dry run: nothing was changed.")
            return False
        if not self.ask or _confirmed(f"Advance to {outcome.target.name}? [y/N] "):
            return True
        print("Nothing was changed.")
        return False

    def conclude(self, outcome: Outcome | None, *, committed: bool) -> None:
        if outcome is None:
            return
        print(_what_next(outcome, committed=committed))
        if outcome.conflicts:
            raise RungError(
                f"Conflicts to resolve, marked in the files: {shown(outcome.conflicts, most=50)}."
            )


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def _table(outcome: Outcome) -> str:
    if not outcome.changes:
        return "No file changes."
    rows = sorted(
        (_ORDER.index(change.kind), path, change) for path, change in outcome.changes.items()
    )
    kinds = max(len(change.kind) for _, _, change in rows)
    paths = max(len(path) for _, path, _ in rows)
    lines = []
    for _, path, change in rows:
        counts = outcome.line_counts.get(path)
        spoken = f"+{counts[0]} -{counts[1]}" if counts else ""
        row = f"  {change.kind:{kinds}}  {path:{paths}}  {spoken}"
        lines.append(row.rstrip())
    counted = Counter(change.kind for change in outcome.changes.values())
    lines.append("")
    for kind in _ORDER:
        if number := counted[kind]:
            words = f" ({_WORDS[kind]})" if kind in _WORDS else ""
            lines.append(f"  {number:3} {kind}{words}")
    return "\n".join(lines)


def _heading(outcome: Outcome) -> str:
    """For a stage its bottleneck, for nobody should pay for one that they do not need."""
    if outcome.target.ref:
        return f"From version {outcome.project.version} to {outcome.target.name}."
    if outcome.stays:
        return _sentence(outcome.target.name)
    said = []
    for stage in outcome.target.skipped:
        said.append(f"Skips {stage}, which is for: {stage.breaks}. {_sentence(stage.arrives)}")
        said.append(f"  Its runbook counts too: docs/runbooks/to-stage-{stage.number}.md\n")
    for stage in LADDER:
        if stage.number == outcome.target.stage:
            said += [
                f"{_sentence(str(stage))[:-1]}, {stage.users}.",
                f"  What breaks:   {stage.breaks}",
                f"  What arrives:  {stage.arrives}",
                f"  Do you see it? Measure first: {stage.measure}.",
            ]
    return "\n".join(said)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _what_next(outcome: Outcome, *, committed: bool) -> str:
    folder = outcome.project.folder
    said = ["Undo it with:", f"    {undo(outcome, committed=committed)}"]
    if not committed:
        said = ["Review it:", f"    {review(outcome)}", "Run `make check`, commit.", *said]
    runbook = folder / "docs" / "runbooks" / f"to-stage-{outcome.target.stage}.md"
    if not outcome.target.ref and runbook.is_file():
        said = [f"What is live follows by {runbook.relative_to(folder)}.", *said]
    return "\n".join(said)


def review(outcome: Outcome) -> str:
    """git diff hides new files until they are added; without HEAD it then hides deleted ones."""
    git = _git(outcome)
    added = outcome.of(Kind.ADDED)
    if outcome.conflicts or not added:  # To add a conflict is to call it resolved.
        return f"{git} diff"
    tops = sorted({path.split("/")[0] for path in added})
    return f"{git} add -N {shlex.join(tops)} && {git} diff HEAD"


def undo(outcome: Outcome, *, committed: bool) -> str:
    git = _git(outcome)
    if committed:
        return f"{git} revert --no-edit HEAD"
    # One restore of both would delete what a person has only just added to the index.
    command = f"{git} restore --staged . && {git} restore ."
    if added := outcome.of(Kind.ADDED):
        asked = ["check-ignore", "-z", "--stdin"]
        stdin = os.fsencode("".join(f"{path}\0" for path in added))
        ignored = "x" if _any(asked, outcome.project.folder, stdin) else ""
        command += f" && {git} clean -fdq{ignored} -- {shlex.join(added)}"
    return command


def _git(outcome: Outcome) -> str:
    folder = outcome.project.folder
    return "git" if folder == Path.cwd() else f"git -C {shlex.quote(_spoken(folder))}"


def _any(asked: list[str], folder: Path, stdin: bytes) -> bool:
    try:
        return bool(git_list(*asked, cwd=folder, stdin=stdin))
    except GitError:  # It exits 1 when none is ignored.
        return False


def _spoken(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("../..") else relative
