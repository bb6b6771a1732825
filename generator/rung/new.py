"""Creates a new project: renders, locks, commits and places it, all or nothing."""

import re
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext, suppress
from pathlib import Path

from rung import git, stages
from rung.answers import Answer, refuse_unprintable
from rung.dependencies import lock_dependencies, not_locked
from rung.errors import RungError, UsageError, reason_of, shown
from rung.interrupts import Interrupts
from rung.progress import spinner
from rung.rendering import render
from rung.template import Template, find_template
from rung.workspace import place, refuse_occupied, workspace_for


def create_project(
    dest: Path,
    given: Callable[[], Mapping[str, Answer]],
    defaults: Callable[[], Mapping[str, Answer]],
    *,
    template: str | None,
    ask: bool,
    commit: bool,
    interrupts: Interrupts,
) -> None:
    try:
        with interrupts.allowed():
            git.fence()
            refuse_unprintable(f"The place {dest}", str(dest))
            if ".git" in dest.resolve().parts:
                raise UsageError(f"{dest} is inside a git directory. Choose another place.")
            if ":" in str(dest.resolve()):
                raise UsageError(
                    f"{dest.resolve()} holds a colon, so no virtual environment works there. "
                    "Choose another place."
                )
            answers = given()
            _refuse_stage_in_words(answers)
            refuse_occupied(dest)
            by_default = defaults()
            _refuse_stage_in_words(by_default)
            source = find_template(template)
        with workspace_for(dest) as workspace:
            with interrupts.allowed():
                project = workspace / dest.resolve().name
                project.mkdir()
                stage = _fill(project, source, answers, by_default, ask=ask, commit=commit)
                outer = _repository_around(dest) if commit else None
                # Printed before anything is placed, because stdout may be on a full disk.
                print(f"{dest}: {stage}, from the template {source.src}", flush=True)
            place(project, dest)
    except KeyboardInterrupt as interrupt:
        raise RungError("Stopped. Nothing was created.") from interrupt
    except BrokenPipeError:
        raise
    except OSError as error:
        raise RungError(f"{dest} cannot be created: {reason_of(error)}.") from error
    if outer:
        print(
            f"{dest} is a git repository inside the repository {outer}. To make it a part of "
            f"{outer}, create it with --no-git.",
            file=sys.stderr,
        )
    if not commit and (ignored := _ignored(dest)):
        print(
            f"The repository around {dest} ignores {shown(ignored, 20)}. Add them: git add -f",
            file=sys.stderr,
        )


def _repository_around(dest: Path) -> str | None:
    folder = next(parent for parent in dest.resolve().parents if parent.is_dir())
    try:
        return git.git("rev-parse", "--show-toplevel", cwd=folder)
    except git.GitError:
        return None


def _ignored(dest: Path) -> list[str]:
    listed = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        return git.git_list(*listed, cwd=dest)
    except git.GitError:  # There is no repository.
        return []


def _refuse_stage_in_words(given: Mapping[str, Answer]) -> None:
    """Copier reads true as 1, and refuses "two" without naming the question."""
    stage = given.get("stage", 1)
    if not re.fullmatch(r"[0-9]{1,9}", str(stage)):
        raise UsageError(f"stage: {stage!r} is not a number. Write --stage 1.")


def _refuse_name_of_package(slug: str, failure: str = "") -> None:
    """uv cannot lock such a project at each stage, because its own name hides the package."""
    is_listed = slug in Path(__file__).with_name("packages.txt").read_text("utf-8").splitlines()
    if is_listed or re.search(r"depends on itself|shadowed by your project", failure):
        raise UsageError(
            f"project_slug: {slug} is the name of a package that the service needs. Choose "
            f"another: --data project_slug={slug}-service"
        )


def _fill(
    project: Path,
    source: Template,
    given: Mapping[str, Answer],
    defaults: Mapping[str, Answer],
    *,
    ask: bool,
    commit: bool,
) -> str:
    if commit:
        git.require_identity(project, otherwise="pass --no-git")
    with nullcontext() if ask else spinner("Rendering"):
        answers = render(project, source, given, defaults, ask=ask)
    _refuse_name_of_package(answers["project_slug"])
    stage = stages.named(answers["stage"])
    with spinner("Locking dependencies"):
        if failure := lock_dependencies(project):
            _refuse_name_of_package(answers["project_slug"], failure)
            (project / "uv.lock").unlink(missing_ok=True)
            print(not_locked(failure), file=sys.stderr)
    if commit:
        with spinner("Committing"):
            # After rendering, so that no file of the template can replace one in .git.
            git.git("init", "--quiet", "--template=", "--initial-branch=main", cwd=project)
            # Forced, because the person's own ignore rules must not leave anything out.
            git.git("add", "--all", "--force", cwd=project)
            message = f"Start {answers['project_slug']} at {stage}"
            git.git("commit", "--quiet", "--no-verify", f"--message={message}", cwd=project)
            with suppress(git.GitError):  # Adds the hooks of the person's own git template.
                git.git("init", "--quiet", cwd=project)
    return stage
