"""A step of a project, to a later stage or a newer template: computed apart, then carried in."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rung import git, stages
from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.interrupts import Interrupts
from rung.opening import alone, workspace_in
from rung.origin import Origin, newest, origin_of
from rung.outcome import Outcome, Target, check_answers, work_out
from rung.project import Project, locate, read_project, refuse_unready, shown
from rung.recorded import spoken
from rung.scratch import Scratch
from rung.switch import switch


class NotUpwardsError(RungError):
    """No later stage than the recorded one, and no other answers."""


class NothingToDoError(RungError):
    """Which is no failure."""

    exit_code = 0


@dataclass(frozen=True)
class Options:
    given: Mapping[str, Answer]
    template: str | None
    commit: bool
    keep_conflicts: bool


class Conversation(Protocol):
    def show(self, outcome: Outcome) -> None: ...
    def agree(self, outcome: Outcome) -> bool: ...


def advance(
    path: Path, to: int | None, options: Options, person: Conversation, interrupts: Interrupts
) -> Outcome | None:
    """To a later stage, or to other answers where the project stands, on the same template version;
    None when not agreed to."""

    def target(project: Project, origin: Origin) -> Target:
        stage = _stage_to_reach(project, to, options.given)
        if stage == project.stage:
            return Target(f"{stages.named(stage)} with {_in_words(options.given)}", stage)
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
            _refuse_untaken(project, options.given)
            raise NothingToDoError(f"Nothing to do: no version is newer than {project.version}.")
        if older:
            raise RungError(
                f"{ref} is older than {project.version}, which the project is at. To go back, "
                "revert the commit that brought it (git revert)."
            )
        return Target(f"version {ref or version}", project.stage, ref=version)

    return _take_step(path, target, options, person, interrupts)


def _stage_to_reach(project: Project, to: int | None, given: Mapping[str, Answer]) -> int:
    last = stages.LADDER[-1]
    here = stages.named(project.stage)
    if to is not None:
        stage = to
    elif project.stage < last.number:
        stage = project.stage + 1
    elif given:  # There is no next stage that they could be meant for.
        stage = project.stage
    else:
        raise NotUpwardsError(f"The project is at {here}, and that is the last one.")
    if not 1 <= stage <= last.number:
        raise RungError(f"There is no stage {stage}: the ladder ends at {last}.")
    if stage == project.stage and not given:
        raise NotUpwardsError(f"The project is at {here} already.")
    if stage < project.stage:
        raise RungError(
            f"The project is at {here}, and a step leads up. To go back, revert the commit that "
            f"brought it (git revert), and follow the way back in "
            f"docs/runbooks/to-stage-{project.stage}.md for what is live."
        )
    return stage


def _refuse_untaken(project: Project, given: Mapping[str, Answer]) -> None:
    recorded = {key: spoken(value) for key, value in project.answers.items()}
    if others := {key: value for key, value in given.items() if recorded.get(key) != value}:
        data = " ".join(f"--data {key}={value}" for key, value in others.items())
        raise RungError(
            f"No version is newer than {project.version}, so {_in_words(others)} was not taken. "
            f"To change it where the project stands: rung advance --to {project.stage} {data}"
        )


def _in_words(given: Mapping[str, Answer]) -> str:
    return ", ".join(f"{key}={spoken(value)}" for key, value in given.items())


def _take_step(
    path: Path,
    target: Callable[[Project, Origin], Target],
    options: Options,
    person: Conversation,
    interrupts: Interrupts,
) -> Outcome | None:
    if "stage" in options.given:
        raise UsageError("The stage is no --data: rung advance --to N leads to it.")
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
                try:
                    towards = target(project, origin)
                except NotUpwardsError:
                    with workspace_in(folder, git_dir) as workspace:
                        check_answers(project, origin, Scratch(workspace, folder))
                    raise
                refuse_unready(project)
                if options.commit:
                    git.require_identity(folder, otherwise="leave out --commit")
            with workspace_in(folder, git_dir) as workspace:
                with interrupts.allowed():
                    scratch = Scratch(workspace, folder)
                    outcome = work_out(project, origin, towards, options.given, scratch)
                    if outcome.stays and not outcome.moves:
                        raise NotUpwardsError(f"The project is at {towards.name} already.")
                    person.show(outcome)
                    _refuse_unsafe(outcome, keep_conflicts=options.keep_conflicts)
                    if not person.agree(outcome):
                        return None
                intent = f"The step to {towards.name}"
                switch(scratch, folder, outcome.tree, outcome.moves, intent=intent)
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


def _refuse_unsafe(outcome: Outcome, *, keep_conflicts: bool) -> None:
    if outcome.lost:
        raise RungError(
            f"The step to {outcome.target.name} deletes files that you have edited: "
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
