"""A step of a project, to a later stage or a newer template: computed apart, then carried in."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rung import git, stages
from rung.answers import Answer
from rung.errors import RungError
from rung.interrupts import Interrupts
from rung.locking import lock
from rung.merge import Change, Kind, merge
from rung.opening import alone, workspace_in
from rung.origin import Origin, newest, origin_of
from rung.progress import working
from rung.project import Project, locate, read_project, refuse_unready, shown
from rung.rendering import Rendered, render_again
from rung.scratch import Entry, Scratch, Tree
from rung.switch import Move, switch


class NothingToDoError(RungError):
    """Which is no failure."""

    exit_code = 0


@dataclass(frozen=True)
class Options:
    given: Mapping[str, Answer]
    template: str | None
    commit: bool
    keep_conflicts: bool


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
    diff: Callable[[], str] = field(repr=False)

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


class Conversation(Protocol):
    def show(self, outcome: Outcome) -> None: ...
    def agree(self, outcome: Outcome) -> bool: ...


def advance(
    path: Path, to: int | None, options: Options, person: Conversation, interrupts: Interrupts
) -> Outcome | None:
    """To a later stage on the same template version; None when not agreed to."""

    def target(project: Project, origin: Origin) -> Target:
        stage = _later_stage(project, to)
        skipped = [one for one in stages.LADDER if project.stage < one.number < stage]
        return Target(stages.named(stage), stage, skipped=skipped)

    return _take_step(path, target, options, person, interrupts)


def upgrade(
    path: Path, ref: str | None, options: Options, person: Conversation, interrupts: Interrupts
) -> Outcome | None:
    """To a newer version of the template at the same stage; None when not agreed to."""

    def target(project: Project, origin: Origin) -> Target:
        version = origin.named(ref) if ref else newest(origin)
        older = origin.is_older(version, project.version)
        if origin.same(version, project.version) or (older and not ref):
            raise NothingToDoError(f"Nothing to do: no version is newer than {project.version}.")
        if older:
            raise RungError(
                f"{ref} is older than {project.version}, which the project is at. To go back, "
                "revert the commit that brought it (git revert)."
            )
        return Target(f"version {ref or version}", project.stage, ref=version)

    return _take_step(path, target, options, person, interrupts)


def _later_stage(project: Project, to: int | None) -> int:
    last = stages.LADDER[-1]
    stage = project.stage + 1 if to is None else to
    here = stages.named(project.stage)
    if stage > last.number and to is None:
        raise RungError(f"The project is at {here}, and that is the last one.")
    if not 1 <= stage <= last.number:
        raise RungError(f"There is no stage {stage}: the ladder ends at {last}.")
    if stage == project.stage:
        raise RungError(f"The project is at {here} already.")
    if stage < project.stage:
        raise RungError(
            f"The project is at {here}, and a step leads up. To go back, revert the commit that "
            f"brought it (git revert), and follow the way back in "
            f"docs/runbooks/to-stage-{project.stage}.md for what is live."
        )
    return stage


def _take_step(
    path: Path,
    target: Callable[[Project, Origin], Target],
    options: Options,
    person: Conversation,
    interrupts: Interrupts,
) -> Outcome | None:
    try:
        with interrupts.allowed():
            git.require()
            git.leave_calling_repository()
            folder, git_dir = locate(path)
            git.let_nothing_interfere()
        with alone(folder, git_dir):
            with interrupts.allowed():
                project = read_project(folder, git_dir)
                origin = origin_of(project, options.template)
                towards = target(project, origin)
                refuse_unready(project)
                if options.commit:
                    git.require_identity(folder, otherwise="leave out --commit")
            with workspace_in(folder, git_dir) as workspace:
                with interrupts.allowed():
                    scratch = Scratch(workspace, folder)
                    outcome, tree = _work_out(project, origin, towards, options.given, scratch)
                    person.show(outcome)
                    _refuse_unsafe(outcome, keep_conflicts=options.keep_conflicts)
                    if not person.agree(outcome):
                        return None
                intent = f"The step to {towards.name}"
                switch(scratch, folder, tree, outcome.moves, intent=intent)
                if outcome.conflicts:
                    _mark_unmerged(scratch, outcome)
            if options.commit:
                _commit(outcome)
            return outcome
    except KeyboardInterrupt as interrupt:
        raise RungError("Stopped. Nothing was changed.") from interrupt
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RungError(
            f"The step cannot be taken: {error.strerror}{where}. Nothing was changed."
        ) from error


def _work_out(
    project: Project,
    origin: Origin,
    target: Target,
    given: Mapping[str, Answer],
    scratch: Scratch,
) -> tuple[Outcome, str]:
    recorded = {**project.answers, "_src_path": origin.src}
    with working("Rendering"):
        new = render_again(
            scratch.folder / "new",
            recorded,
            ref=target.ref,
            given={**given, "stage": target.stage},
        )
        plain = [pattern for pattern in new.excludes if "{" not in pattern]
        old = render_again(scratch.folder / "old", recorded, excludes=plain)
    prefix = git.git("rev-parse", "--show-prefix", cwd=project.folder)
    yours_tree = git.git("rev-parse", f"HEAD:{prefix}", cwd=project.folder)
    yours, before = scratch.entries(yours_tree), scratch.read_folder(old.folder)
    _refuse_foreign_answers(project, recorded, yours, before, scratch)
    notes = _refuse_changed_answers(project, target, given, new)
    changes = merge(
        scratch, yours, before, scratch.read_folder(new.folder), name=target.name, kept=new.kept
    )
    _refuse_blocked(project.folder, yours, changes)
    tree = scratch.tree(yours_tree, _results(changes))
    dependencies = changes.get("pyproject.toml")
    if "uv.lock" in yours and dependencies and dependencies.kind != Kind.CONFLICT:
        with working("Locking dependencies"):
            notes += _relock(scratch, tree, yours["uv.lock"], changes)
        tree = scratch.tree(yours_tree, _results(changes))
    counts = scratch.line_counts(yours_tree, tree)
    return Outcome(
        project, target, changes, counts, notes, lambda: scratch.diff(yours_tree, tree)
    ), tree


def _results(changes: Mapping[str, Change]) -> dict[str, Entry | None]:
    return {
        path: change.result for path, change in changes.items() if change.yours != change.result
    }


def _relock(scratch: Scratch, tree: str, yours: Entry, changes: dict[str, Change]) -> list[str]:
    folder = scratch.folder / "to-lock"
    scratch.check_out(tree, folder)
    if failure := lock(folder):
        return [f"Dependencies are not locked ({failure}): run `uv lock` there."]
    locked = Entry(yours.mode, scratch.store((folder / "uv.lock").read_bytes()))
    if locked != yours:
        changes["uv.lock"] = Change(Kind.CHANGED, yours, yours, locked, locked)
    return []


def _refuse_foreign_answers(
    project: Project, recorded: Mapping[str, Any], yours: Tree, before: Tree, scratch: Scratch
) -> None:
    """An answer edited by hand would make the step a silent no-op for the files it stands for."""
    if not any(_rungs(path) for path in before.keys() - yours.keys()) and not any(
        _rungs(path) and _says_it_is_rungs(project.folder / path)
        for path in yours.keys() - before.keys()
    ):
        return
    for number, (key, value) in enumerate(_other_answers(project)):
        with suppress(RungError):  # This version knows no such stage.
            other = render_again(scratch.folder / f"other-{number}", recorded, given={key: value})
            files = scratch.read_folder(other.folder)
            telling = before.keys() ^ files.keys()
            if telling and all((path in yours) == (path in files) for path in telling):
                raise RungError(
                    f"The answers say {key}: {_yaml(project.answers[key])}, but the files are "
                    f"those of {key}: {_yaml(value)} ({shown(sorted(telling))}). Was "
                    f"{project.folder / '.copier-answers.yml'} edited by hand? Put {key} back "
                    "and commit; this command then changes answers and files together."
                )


def _rungs(path: str) -> bool:
    return path.startswith(("app/infra/", "tests/infra/", "dev/", "deploy/", "docs/runbooks/"))


def _says_it_is_rungs(file: Path) -> bool:
    with file.open("rb") as lines:
        return b"Rung's file:" in lines.readline()


def _other_answers(project: Project) -> Iterator[tuple[str, Answer]]:
    for stage in stages.LADDER:
        if stage.number != project.stage:
            yield "stage", stage.number
    for key, value in project.answers.items():
        if isinstance(value, bool):
            yield key, not value


def _yaml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse_changed_answers(
    project: Project, target: Target, given: Mapping[str, Answer], new: Rendered
) -> list[str]:
    """Answers with what to say about questions that nobody has been asked."""
    public = {key: value for key, value in new.answers.items() if not key.startswith("_")}
    taken = sorted(public.keys() - project.answers.keys() - given.keys())
    for key in public.keys() & project.answers.keys() - given.keys() - {"stage"}:
        if public[key] != project.answers[key]:
            raise RungError(
                f"The answer {key}: {project.answers[key]} does not hold in {target.name}; it "
                f"would become {public[key]}. Say which it is to be: --data {key}=…"
            )
    if target.ref and taken:
        asked = "\n".join(
            f"    --data {key}={_yaml(public[key])}   {new.questions[key].get('help', '')}".rstrip()
            for key in taken
        )
        raise RungError(
            f"{target.name.capitalize()} asks what this project was never asked, and nothing is "
            f"added or removed unasked. Answer it (these are the defaults):\n{asked}"
        )
    return [
        f"{key}: {_yaml(public[key])} is the default; --data {key}=… says otherwise."
        for key in taken
    ]


def _refuse_blocked(folder: Path, yours: Tree, changes: Mapping[str, Change]) -> None:
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


def _refuse_unsafe(outcome: Outcome, *, keep_conflicts: bool) -> None:
    if outcome.lost:
        raise RungError(
            f"{outcome.target.name.capitalize()} deletes files that you have edited: "
            f"{shown(outcome.lost, most=20)}. Move what you wrote into files of your own, git rm "
            "these, and commit. Nothing was changed."
        )
    if outcome.conflicts and not keep_conflicts:
        raise RungError(
            f"In conflict: {shown(outcome.conflicts, most=50)}. Both you and the step changed the "
            "same lines. Nothing was changed; --diff shows the text, and --keep-conflicts applies "
            "the step with markers to resolve."
        )


def _mark_unmerged(scratch: Scratch, outcome: Outcome) -> None:
    """As a merge of git's own would leave them: listed by git status, and no commit before."""
    folder = outcome.project.folder
    lines: list[str] = []
    for path in outcome.conflicts:
        change = outcome.changes[path]
        lines.append(f"0 {'0' * 40}\t{path}")
        for number, side in enumerate((change.before, change.yours, change.theirs), start=1):
            if side:
                content = scratch.content(side)
                git.git("hash-object", "-w", "--stdin", cwd=folder, stdin=content)
                lines.append(f"{side.mode} {side.id} {number}\t{path}")
    listed = os.fsencode("".join(f"{line}\0" for line in lines))
    git.git("update-index", "-z", "--index-info", cwd=folder, stdin=listed)


def _commit(outcome: Outcome) -> None:
    project = outcome.project
    paths = os.fsencode("".join(f"{move.path}\0" for move in outcome.moves))
    listed = ["--pathspec-from-file=-", "--pathspec-file-nul"]
    literally = {"GIT_LITERAL_PATHSPECS": "1"}

    def run(*words: str) -> None:
        git.git(*words, *listed, cwd=project.folder, stdin=paths, environment=literally)

    slug = project.answers.get("project_slug", project.folder.name)
    message = f"Bring {slug} to {outcome.target.name}"
    try:
        run("add", "--all", "--force")
        run("commit", "--quiet", "--no-verify", "--only", f"--message={message}")
    except git.GitError as error:
        raise RungError(
            f"The step to {outcome.target.name} is taken, but not committed: {error}"
        ) from error
