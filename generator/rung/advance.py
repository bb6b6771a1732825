"""Takes a step: to a later stage, to a newer template, or to other answers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rung import git, stages
from rung.answers import Answer
from rung.answers_check import differing, in_words
from rung.apply import apply
from rung.errors import RungError, UsageError, in_shell, reason_of, shown
from rung.interrupts import Interrupts
from rung.lock import locked, workspace_in
from rung.origin import Origin, newest, origin_of
from rung.plan import Plan, Target, check_answers, make_plan, refuse_stale
from rung.project import Project, locate, read_project, refuse_unready
from rung.report import Conversation
from rung.scratch import Scratch
from rung.undo import commit_paths, record_commit, record_of, take_back


class AlreadyThereError(RungError):
    """The project already has this stage and these answers."""


class NothingToDoError(RungError):
    """No version is newer. That is not a failure."""

    exit_code = 0


@dataclass(frozen=True)
class Options:
    given: Mapping[str, Answer]
    template: str | None
    commit: bool
    keep_conflicts: bool


def advance(
    path: Path, to: int | None, options: Options, person: Conversation, interrupts: Interrupts
) -> Plan | None:
    """Advance to a later stage, or change answers at this stage, on the same template version.

    Returns None when the person declines.
    """

    def target(project: Project, origin: Origin) -> Target:
        stage = _stage_to_reach(project, to, options.given)
        if stage == project.stage:
            return Target(f"{stages.named(stage)} with {_answers_in_words(options.given)}", stage)
        skipped = [one for one in stages.LADDER if project.stage < one.number < stage]
        return Target(stages.named(stage), stage, skipped=skipped)

    return _take_step(path, target, options, person, interrupts)


def upgrade(
    path: Path, ref: str | None, options: Options, person: Conversation, interrupts: Interrupts
) -> Plan | None:
    """Upgrade to a newer version of the template, at the same stage.

    Returns None when the person declines.
    """

    def target(project: Project, origin: Origin) -> Target:
        version = origin.named(ref) if ref else newest(origin)
        older = origin.is_older(version, project.version)
        if origin.same(version, project.version) or (older and not ref):
            _refuse_unused(project, options.given)
            if origin.src != project.src:  # The template has moved.
                here = f"version {project.version} of {origin.src}"
                return Target(here, project.stage, ref=project.version)
            raise NothingToDoError(f"Nothing to do: no version is newer than {project.version}.")
        if older:
            raise RungError(
                f"{ref} is older than {project.version}, the repo's version. To go back, "
                "revert the commit of the upgrade (git revert)."
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
    elif given:  # At the last stage, answers can only be meant for this one.
        stage = project.stage
    else:
        raise AlreadyThereError(f"The repo is at {here}, the last stage.")
    if not 1 <= stage <= last.number:
        raise RungError(f"There is no stage {stage}: the ladder ends at {last}.")
    if stage == project.stage and not given:
        raise AlreadyThereError(f"The repo is at {here} already.")
    if stage < project.stage:
        raise RungError(
            f"The repo is at {here}, and rung advance cannot go back to an earlier stage. "
            "Revert the commit that brought this stage (git revert). In production, follow the "
            f"steps back in docs/runbooks/to-stage-{project.stage}.md."
        )
    return stage


def _refuse_unused(project: Project, given: Mapping[str, Answer]) -> None:
    if others := differing(project, given):
        data = " ".join(f"--data {in_shell(f'{key}={value}')}" for key, value in others.items())
        raise RungError(
            f"No version is newer than {project.version}, so {_answers_in_words(others)} was not "
            f"applied. To change it at this stage: rung advance --to {project.stage} {data}"
        )


def _answers_in_words(given: Mapping[str, Answer]) -> str:
    return ", ".join(f"{key}={in_words(value)}" for key, value in given.items())


def _take_step(
    path: Path,
    target: Callable[[Project, Origin], Target],
    options: Options,
    person: Conversation,
    interrupts: Interrupts,
) -> Plan | None:
    if "stage" in options.given:
        raise UsageError(
            "Use rung advance --to N to change the stage; --data stage=… is not accepted."
        )
    try:
        with interrupts.allowed():
            git.fence()
            folder, git_dir = locate(path)
        with locked(folder, git_dir):
            with interrupts.allowed():
                project = read_project(folder, git_dir)
                origin = origin_of(project, options.template)
                towards = _target_of(project, origin, target)
                refuse_unready(project)
                person.require_terminal()
                if options.commit:
                    git.require_identity(folder, otherwise="leave out --commit")
            with workspace_in(folder, git_dir) as workspace:
                with interrupts.allowed():
                    scratch = Scratch(workspace, folder)
                    plan = make_plan(project, origin, towards, options.given, scratch)
                    if not _is_agreed(plan, options, person):
                        return None
                    refuse_stale(plan)
                intent = f"The step to {towards.name}"
                record = record_of(folder, git_dir)
                apply(scratch, folder, plan.tree, plan.moves, intent=intent, record=record)
                if plan.conflicts:
                    _mark_unmerged(scratch, plan)
            if options.commit and not plan.conflicts:
                _commit(plan)
                record_commit(folder, record)
            return plan
    except KeyboardInterrupt as interrupt:
        raise RungError("Stopped. Nothing was changed.") from interrupt
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RungError(
            f"The step cannot be applied: {reason_of(error)}. Nothing was changed."
        ) from error


def _target_of(
    project: Project, origin: Origin, target: Callable[[Project, Origin], Target]
) -> Target:
    try:
        return target(project, origin)
    except AlreadyThereError:  # The answers may say so after an edit by hand.
        with workspace_in(project.folder, project.git_dir) as workspace:
            check_answers(project, origin, Scratch(workspace, project.folder))
        raise


def _is_agreed(plan: Plan, options: Options, person: Conversation) -> bool:
    if plan.changes_answers_only and not plan.moves:
        raise AlreadyThereError(f"The repo is at {plan.target.name} already.")
    person.show(plan)
    _refuse_unsafe(plan, keep_conflicts=options.keep_conflicts)
    return person.agree(plan)


def _refuse_unsafe(plan: Plan, *, keep_conflicts: bool) -> None:
    if plan.lost:
        raise RungError(
            f"The step to {plan.target.name} deletes files that you have edited: "
            f"{shown(plan.lost, most=20)}. Move your edits into your own files, git rm these, "
            "and commit. Nothing was changed."
        )
    if plan.conflicts and not keep_conflicts:
        raise RungError(
            f"In conflict: {shown(plan.conflicts, most=50)}. Both you and the step changed the "
            "same lines. Nothing was changed; --diff shows the text, and --keep-conflicts applies "
            "the step with markers to resolve."
        )


def _mark_unmerged(scratch: Scratch, plan: Plan) -> None:
    """Marks conflicts as git merge does: git status lists them, and git refuses a commit."""
    folder = plan.project.folder
    prefix = git.git("rev-parse", "--show-prefix", cwd=folder)  # the index has paths from the top
    lines: list[str] = []
    for path in plan.conflicts:
        change = plan.changes[path]
        sides = [side for side in (change.before, change.yours, change.theirs) if side]
        lines.append(f"0 {'0' * len(sides[0].id)}\t{prefix}{path}")
        for number, side in enumerate((change.before, change.yours, change.theirs), start=1):
            if side:
                content = scratch.content(side)
                git.git("hash-object", "-w", "--stdin", cwd=folder, stdin=content)
                lines.append(f"{side.mode} {side.id} {number}\t{prefix}{path}")
    git.git(
        *("update-index", "-z", "--index-info"),
        cwd=folder,
        stdin=git.null_terminated(lines),
    )


def _commit(plan: Plan) -> None:
    project = plan.project
    slug = project.answers.get("project_slug", project.folder.name)
    message = f"Bring {slug} to {plan.target.name}"
    try:
        commit_paths(project.folder, [move.path for move in plan.moves], message)
    except git.GitError as error:
        try:
            take_back(project.folder, project.git_dir, plan.moves, plan.target.name)
        except (OSError, RungError) as stuck:
            raise RungError(
                f"The step to {plan.target.name} was applied. It cannot be committed: {error}. "
                f"It cannot be undone either: {stuck}. Remove the cause, then run rung undo."
            ) from error
        raise RungError(
            f"The step to {plan.target.name} cannot be committed: {error}. Nothing was changed. "
            "Without --commit it can be applied."
        ) from error
