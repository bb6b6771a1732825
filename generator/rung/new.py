import os
import re
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path

from rung import git, stages
from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.interrupts import Interrupts
from rung.locking import lock
from rung.progress import working
from rung.rendering import render
from rung.template import Template, find_template
from rung.workspace import place, workspace_for


def create_project(
    dest: Path,
    given: Mapping[str, Answer],
    *,
    template: str | None,
    ask: bool,
    commit: bool,
    interrupts: Interrupts,
) -> str:
    """Make a project at dest, all of it or nothing; answers with the name of its stage."""
    try:
        with interrupts.allowed():
            git.require()
            git.leave_calling_repository()
            _refuse_stage_in_words(given)
            _refuse_occupied(dest)
            source = find_template(template)
            git.let_nothing_interfere()
        with workspace_for(dest) as workspace:
            with interrupts.allowed():
                project = workspace / dest.resolve().name
                project.mkdir()
                stage = _fill(project, source, given, ask=ask, commit=commit)
            place(project, dest)
    except KeyboardInterrupt as interrupt:
        raise RungError("Stopped. Nothing was created.") from interrupt
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise RungError(f"{dest} cannot be created: {error.strerror}{where}.") from error
    return stage


def _refuse_stage_in_words(given: Mapping[str, Answer]) -> None:
    """Copier would take true for 1, and name no question when it takes nothing for "two"."""
    stage = given.get("stage", 1)
    if not re.fullmatch(r"\d+", str(stage)):
        raise UsageError(f"stage: {stage!r} is not a number. Write --stage 1.")


def _refuse_occupied(dest: Path) -> None:
    if not os.path.lexists(dest):
        nearest = next(parent for parent in dest.absolute().parents if os.path.lexists(parent))
        if not nearest.is_dir():
            raise UsageError(f"{nearest} is not a folder, so nothing can lie in it.")
        return
    if not dest.is_dir():
        raise UsageError(f"{dest} exists and is not a folder. Choose another place.")
    if any(dest.iterdir()):
        raise UsageError(f"{dest} exists and is not empty. Choose another place.")


def _fill(
    project: Path, source: Template, given: Mapping[str, Answer], *, ask: bool, commit: bool
) -> str:
    if commit:
        git.git("init", "--quiet", "--initial-branch=main", cwd=project)
        git.require_identity(project, otherwise="pass --no-git")
    with nullcontext() if ask else working("Rendering"):
        answers = render(project, source, given, ask=ask)
    stage = stages.named(answers["stage"])
    with working("Locking dependencies"):
        if failure := lock(project):
            (project / "uv.lock").unlink(missing_ok=True)
            not_locked = f"Dependencies are not locked ({failure}): run `uv lock` there later."
            print(not_locked, file=sys.stderr)
    if commit:
        with working("Committing"):
            # Forced, for the person's own ignore rules must not leave anything out.
            git.git("add", "--all", "--force", cwd=project)
            message = f"Start {answers['project_slug']} at {stage}"
            git.git("commit", "--quiet", "--no-verify", f"--message={message}", cwd=project)
    return stage
