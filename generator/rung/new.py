import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

from rung import git, stages
from rung.answers import Answer
from rung.errors import RungError, UsageError
from rung.git import last_line
from rung.interrupts import Interrupts
from rung.progress import working
from rung.template import Template, find_template

# Locking takes well under a second with uv's cache warm, and 10 s to give up without a network.
_LOCK_SECONDS = 120


def create_project(
    dest: Path,
    given: Mapping[str, Answer],
    *,
    template: str | None,
    ask: bool,
    commit: bool,
) -> str:
    """Make a project at dest, all of it or nothing; answers with the name of its stage."""
    try:
        git.require()
        git.leave_calling_repository()
        _refuse_stage_in_words(given)
        _refuse_occupied(dest)
        source = find_template(template)
        git.keep_content_exact()
        with Interrupts.held() as interrupts, _workspace(_beside(dest)) as workspace:
            with interrupts.allowed():
                project = workspace / (dest.resolve().name or "project")
                project.mkdir()
                stage = _fill(project, source, given, ask=ask, commit=commit)
            _place(project, dest)
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


def _beside(dest: Path) -> Path:
    """The nearest folder that exists: dest itself may be a mount, or all that one may write to."""
    return next(folder for folder in (dest.resolve(), *dest.resolve().parents) if folder.is_dir())


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    workspace = Path(tempfile.mkdtemp(prefix=".rung-new-", dir=folder))
    system_wide = tempfile.tempdir
    tempfile.tempdir = str(workspace)  # Copier's clones too go when the workspace goes.
    try:
        yield workspace
    finally:
        tempfile.tempdir = system_wide
        _remove(workspace)


def _remove(workspace: Path) -> None:
    for _ in range(50):  # A git that has just been interrupted may still be writing.
        shutil.rmtree(workspace, ignore_errors=True)
        if not workspace.exists():
            return
        time.sleep(0.1)


def _fill(
    project: Path, source: Template, given: Mapping[str, Answer], *, ask: bool, commit: bool
) -> str:
    if commit:
        git.git("init", "--quiet", "--initial-branch=main", cwd=project)
        git.require_identity(project)
    with nullcontext() if ask else working("Rendering"):
        answers = _render(project, source, given, ask=ask)
    stage = stages.named(answers["stage"])
    with working("Locking dependencies"):
        _lock(project)
    if commit:
        with working("Committing"):
            # Forced, for the person's own ignore rules must not leave anything out.
            git.git("add", "--all", "--force", cwd=project)
            message = f"Start {answers['project_slug']} at {stage}"
            git.git("commit", "--quiet", "--no-verify", f"--message={message}", cwd=project)
    return stage


def _render(
    project: Path, source: Template, given: Mapping[str, Answer], *, ask: bool
) -> Mapping[str, Any]:
    from copier import run_copy
    from copier.errors import CopierError
    from jinja2 import TemplateError
    from plumbum import ProcessExecutionError

    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            worker = run_copy(
                source.src,
                project,
                data=dict(given),
                user_defaults={"project_name": _spoken(project.name)},
                vcs_ref=source.ref,
                defaults=not ask,
                overwrite=True,
                quiet=True,
            )
    except KeyboardInterrupt:  # Copier's own kind is a CopierError as well.
        raise
    except ProcessExecutionError as error:
        reason = last_line(error.stderr)
        raise RungError(f"The template {source.src} cannot be fetched: {reason}") from error
    except (CopierError, TemplateError) as error:
        raise RungError(f"The template {source.src} cannot be rendered: {error}") from error
    except ValueError as error:
        raise UsageError(_explained(str(error))) from error
    _refuse_unknown(given, worker.template.questions_data)
    return worker.answers.combined


def _spoken(folder: str) -> str:
    """web-shop: Web Shop."""
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[-_.\s]+", folder) if word)


def _explained(refusal: str) -> str:
    """Copier's words for an answer it does not take, begun with the question's name."""
    if required := re.fullmatch(r'Question "(\w+)" is required', refusal):
        return f"{required[1]} has no default for these answers. Pass --data {required[1]}=…"
    return re.sub(r"(Validation error for question|Invalid choice for) '(\w+)':", r"\2:", refusal)


def _refuse_unknown(given: Mapping[str, Answer], questions: Mapping[str, object]) -> None:
    if not {"project_slug", "stage"} <= questions.keys():
        raise UsageError(
            "This Copier template is not Rung's: it asks for no project_slug and no stage."
        )
    if unknown := given.keys() - questions.keys():
        raise UsageError(
            f"The template does not ask for {', '.join(sorted(unknown))}. "
            f"It asks for {', '.join(questions)}."
        )


def _lock(project: Path) -> None:
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        _not_locked(project, "uv is not on PATH")
        return
    try:
        done = subprocess.run(
            [uv, "lock", "--quiet", "--python", sys.executable],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LOCK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        _not_locked(project, str(error))
    else:
        if done.returncode != 0:
            _not_locked(project, last_line(done.stderr))


def _not_locked(project: Path, reason: str) -> None:
    (project / "uv.lock").unlink(missing_ok=True)
    print(f"Dependencies are not locked ({reason}): run `uv lock` there later.", file=sys.stderr)


def _place(project: Path, dest: Path) -> None:
    if dest.is_dir():
        _move_children(project, dest.resolve())
        return
    missing = [parent for parent in dest.absolute().parents if not parent.exists()]
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        project.rename(dest)
    except OSError:
        for parent in missing:
            if parent.exists():
                parent.rmdir()
        raise


def _move_children(project: Path, dest: Path) -> None:
    """The folder itself stays, for a shell may stand in it."""
    moved: list[Path] = []
    try:
        for child in list(project.iterdir()):
            moved.append(child.rename(dest / child.name))  # noqa: PERF401 - one that fails stops here
    except OSError:
        for child in moved:
            child.rename(project / child.name)
        raise
