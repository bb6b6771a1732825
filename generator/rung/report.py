"""Shows a person what a step would change, or has changed."""

import os
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rung.doctor import last_verdict
from rung.errors import RungError, UsageError, in_shell, printable, shown
from rung.git import git_list
from rung.interrupts import left_to_the_pager
from rung.merge import Kind
from rung.plan import Plan
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
    Kind.LEFT_OUT: "removed or renamed by you, changed by the step: the change is not applied",
    Kind.EDITED_AND_DELETED: "edited by you, deleted by the step",
    Kind.CONFLICT: "the same lines changed by you and by the step",
}


@dataclass(frozen=True)
class Conversation:
    ask: bool
    dry_run: bool
    diff: bool

    def require_terminal(self) -> None:
        asks = self.ask and not self.dry_run
        if asks and not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise UsageError(
                "rung advance asks for confirmation and needs a terminal. Pass --yes or --dry-run."
            )

    def show(self, plan: Plan) -> None:
        print(f"{_heading(plan)}\n\n{_table(plan)}\n")
        for note in plan.notes:
            print(printable(note))
        sys.stdout.flush()
        if self.diff:
            _show_diff(plan)

    def agree(self, plan: Plan) -> bool:
        if self.dry_run:
            print("Dry run: nothing was changed.")
            return False
        if self.ask and plan.target.stage > plan.project.stage:
            print(last_verdict(plan.project.folder))
        if not self.ask or _confirmed(f"Advance to {plan.target.name}? [y/N] "):
            return True
        print("Nothing was changed.")
        return False

    def conclude(self, plan: Plan | None, *, commit: bool) -> None:
        if plan is None:
            return
        print(_what_next(plan, committed=commit and not plan.conflicts))
        if plan.conflicts:
            uncommitted = " So the step is not committed." if commit else ""
            raise RungError(
                "Conflicts to resolve, marked in the files: "
                f"{shown(plan.conflicts, most=50)}.{uncommitted}"
            )


def _confirmed(question: str) -> bool:
    try:
        return input(question).strip().lower() in {"y", "yes"}
    except EOFError:
        print()
        return False


def _table(plan: Plan) -> str:
    if not plan.changes:
        return "No file changes."
    rows = sorted(
        (_ORDER.index(change.kind), path, change) for path, change in plan.changes.items()
    )
    kinds = max(len(change.kind) for _, _, change in rows)
    paths = max(len(printable(path)) for _, path, _ in rows)
    lines = []
    for _, path, change in rows:
        counts = plan.line_counts.get(path)
        counted_lines = f"+{counts[0]} -{counts[1]}" if counts else ""
        row = f"  {change.kind:{kinds}}  {printable(path):{paths}}  {counted_lines}"
        lines.append(row.rstrip())
    counted = Counter(change.kind for change in plan.changes.values())
    lines.append("")
    for kind in _ORDER:
        if number := counted[kind]:
            words = f" ({_WORDS[kind]})" if kind in _WORDS else ""
            lines.append(f"  {number:3} {kind}{words}")
    return "\n".join(lines)


def _heading(plan: Plan) -> str:
    """Names a stage's bottleneck first: a team should take a stage only when it needs it."""
    if plan.target.ref:
        return f"From version {plan.project.version} to {plan.target.name}."
    if plan.changes_answers_only:
        return _sentence(plan.target.name)
    lines = []
    for stage in plan.target.skipped:
        lines.append(f"Skips {stage}, which is for: {stage.breaks}. {_sentence(stage.arrives)}")
        lines.append(f"  Follow its runbook too: docs/runbooks/to-stage-{stage.number}.md\n")
    for stage in LADDER:
        if stage.number == plan.target.stage:
            lines += [
                f"{_sentence(str(stage))[:-1]}, {stage.users}.",
                f"  What breaks:   {stage.breaks}",
                f"  What arrives:  {stage.arrives}",
                f"  Do you see it? Measure first: {stage.measure}.",
            ]
    return "\n".join(lines)


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _what_next(plan: Plan, *, committed: bool) -> str:
    folder = plan.project.folder
    lines = ["Undo it with:", f"    {undo(plan)}"]
    if not committed:
        check = [*_forced(plan), "Run `make check`, commit."]
        lines = ["Review it:", f"    {review(plan)}", *check, *lines]
    if plan.changes.keys() & {"dev/services.py", "pyproject.toml"}:  # New servers or dependencies.
        lines = ["If `make dev` is running, stop it and start it again.", *lines]
    runbook = folder / "docs" / "runbooks" / f"to-stage-{plan.target.stage}.md"
    if not plan.target.ref and runbook.is_file():
        lines = [f"In production, follow {runbook.relative_to(folder)}.", *lines]
    return "\n".join(lines)


def review(plan: Plan) -> str:
    """git diff hides new files until they are added, and then needs HEAD to show deleted ones."""
    git = _git(plan)
    added = plan.of(Kind.ADDED)
    if plan.conflicts or not added:  # Adding a conflict would mark it as resolved.
        return f"{git} diff"
    tops = sorted({path.split("/")[0] for path in added})
    return f"{git} add -N {shlex.join(tops)} && {git} diff HEAD"


def _forced(plan: Plan) -> list[str]:
    """Rules of the person's own may ignore new files, and a commit would then miss them."""
    if not (added := plan.of(Kind.ADDED)):
        return []
    ignored = git_list(
        *("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--", *added),
        cwd=plan.project.folder,
        environment={"GIT_LITERAL_PATHSPECS": "1"},
    )
    if not ignored:
        return []
    return [
        "Your git ignores new files. Add them:",
        f"    {_git(plan)} add -f {shlex.join(ignored)}",
    ]


def undo(plan: Plan) -> str:
    folder = plan.project.folder
    return "rung undo" if folder == Path.cwd() else f"rung undo {in_shell(_near(folder))}"


def _git(plan: Plan) -> str:
    folder = plan.project.folder
    return "git" if folder == Path.cwd() else f"git -C {shlex.quote(_near(folder))}"


def _near(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("../..") else relative


def _show_diff(plan: Plan) -> None:
    """Paged and coloured at a terminal, as git does."""
    if not sys.stdout.isatty():
        print(plan.diff(False), flush=True)
        return
    text = plan.diff("NO_COLOR" not in os.environ)
    with left_to_the_pager():
        done = subprocess.run(
            ["sh", "-c", os.environ.get("PAGER", "").strip() or "less"],
            input=text.encode("utf-8", "surrogateescape"),
            env={"LESS": "FRX", **os.environ},
            check=False,
        )
    if done.returncode in {126, 127}:  # The pager does not exist.
        print(text, flush=True)
