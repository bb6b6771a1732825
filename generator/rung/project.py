"""Reads a generated repo, and refuses one that is not ready to be changed."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung import stages
from rung.errors import RungError, UsageError, is_printable, shown
from rung.git import GitError, broken, git, git_list
from rung.migrations import heads
from rung.reading import UnreadableError, read_yaml
from rung.rendering import ANSWERS_FILE

RUNGS = (
    "app/infra/",
    "tests/infra/",
    "dev/",
    "deploy/",
    "docs/guide/",
    "docs/runbooks/",
    "docs/stage.md",
)

_UNDER_WAY = {
    "MERGE_HEAD": "a merge (git merge --abort)",
    "CHERRY_PICK_HEAD": "a cherry-pick (git cherry-pick --abort)",
    "REVERT_HEAD": "a revert (git revert --abort)",
    "sequencer": "a cherry-pick or revert of several commits (git status names the command)",
    "rebase-merge": "a rebase (git rebase --abort)",
    "rebase-apply": "a rebase or an am (git rebase --abort)",
    "BISECT_LOG": "a bisect (git bisect reset)",
    "index.lock": "another git command (index.lock; remove it if none is running)",
}


@dataclass(frozen=True)
class Project:
    folder: Path
    """The folder with its answers: the top of its repository, or a folder of a larger one."""
    git_dir: Path
    answers: Mapping[str, Any]

    @property
    def stage(self) -> int:
        return int(self.answers["stage"])

    @property
    def version(self) -> str:
        return str(self.answers["_commit"])

    @property
    def src(self) -> str:
        return str(self.answers["_src_path"])


def locate(path: Path) -> tuple[Path, Path]:
    """The project's folder, which is path or above it, and its git directory."""
    start = path.resolve()
    if not start.is_dir():
        named = f" To name a stage: rung advance --to {path}" if str(path).isdecimal() else ""
        raise UsageError(f"{path} is not a folder.{named}")
    folder = next((f for f in (start, *start.parents) if (f / ANSWERS_FILE).is_file()), None)
    if folder is None:
        raise RungError(
            f"{path} is not a repo of Rung's: there is no {ANSWERS_FILE} in it or above it. "
            f"Name a repo's folder. If the file was deleted: git log -p -- {ANSWERS_FILE}"
        )
    try:
        top = git("rev-parse", "--show-toplevel", cwd=folder)
        git_dir = git("rev-parse", "--absolute-git-dir", cwd=folder)
    except GitError as error:
        if any(os.path.lexists(above / ".git") for above in (folder, *folder.parents)):
            raise broken(folder, error) from error
        raise RungError(
            f"{folder} is not in a git work tree ({error}), so nothing could be undone. Run "
            'git init && git add --all && git commit -m "Before Rung"'
        ) from error
    # Names are not compared, because on macOS git corrects a typed capital letter.
    if git("rev-parse", "--is-inside-work-tree", cwd=folder) != "true":
        raise RungError(
            f"{folder} is outside its git work tree {top}. Correct core.worktree in its git config."
        )
    return folder, Path(git_dir)


def read_project(folder: Path, git_dir: Path) -> Project:
    try:
        answers = read_yaml(folder / ANSWERS_FILE)
        _refuse_another_template(folder, answers)
        answers = checked(answers)
    except UnreadableError as error:
        raise RungError(
            f"{folder / ANSWERS_FILE} is broken: {error}. Copier wrote it, to record which "
            f"template the files came from. Restore it from git: git log -p -- {ANSWERS_FILE}"
        ) from error
    return Project(folder, git_dir, answers)


def _refuse_another_template(folder: Path, answers: Any) -> None:
    names = answers.keys() if isinstance(answers, Mapping) else set()
    if {"_src_path", "_commit"} <= names and "stage" not in names:
        raise RungError(
            f"{folder / ANSWERS_FILE} names no stage, so {folder} comes from another template than "
            "Rung's, and rung cannot change it. If the line was removed, find it with git log -p "
            f"-- {ANSWERS_FILE}"
        )


def checked(answers: Any) -> Mapping[str, Any]:
    """The recorded answers of a project. Raises UnreadableError."""
    if not isinstance(answers, Mapping):
        raise UnreadableError("it is not a mapping of questions to answers")
    for key in answers:
        if not isinstance(key, str):
            raise UnreadableError(f"{str(key)[:60]} is no name of a question")
    for key, kind in {"_src_path": str, "_commit": str, "stage": int}.items():
        if key not in answers:
            raise UnreadableError(f"it names no {key}")
        if type(answers[key]) is not kind:
            raise UnreadableError(f"{key} is {answers[key]!r:.60}")
    last = stages.LADDER[-1].number
    if not 1 <= answers["stage"] <= last:
        stage = str(answers["stage"])[:20]
        raise UnreadableError(f"stage is {stage}, and the stages are 1 to {last}")
    for key in ("_src_path", "_commit"):
        if answers[key][:1] in {"", "-"} or not is_printable(answers[key]):
            raise UnreadableError(f"{key} is {answers[key][:60]!r}")
    return answers


def refuse_unready(project: Project) -> None:
    """A step must lose nothing, so each change must be committed, visible to git and complete."""
    try:
        _refuse_no_commit(project)
        refuse_operation_under_way(project.folder, project.git_dir)
        _refuse_uncommitted(project)
        refuse_hidden(project.folder)
        _refuse_ignored(project)
    except GitError as error:
        raise broken(project.folder, error) from error
    _refuse_two_heads(project)


def _refuse_no_commit(project: Project) -> None:
    try:
        git("rev-parse", "--verify", "--quiet", "HEAD", cwd=project.folder)
    except GitError as error:
        raise RungError(
            f"{project.folder} has no commit yet, so nothing could be undone. Commit it first."
        ) from error


def refuse_operation_under_way(folder: Path, git_dir: Path) -> None:
    for mark, operation in _UNDER_WAY.items():
        if (git_dir / mark).exists():
            raise RungError(f"{folder} is in the middle of {operation}. Finish or abort it.")


def _refuse_uncommitted(project: Project) -> None:
    status = ["status", "--porcelain", "-z", "--no-renames", "--untracked-files=no"]
    changes = git_list(*status, "--ignore-submodules=none", "--", ".", cwd=project.folder)
    if changes:
        raise RungError(
            f"{project.folder} has changes that are not committed "
            f"({shown(change[3:] for change in changes)}). Commit or stash them."
        )
    if not git_list("ls-files", "-z", "--", ANSWERS_FILE, cwd=project.folder):
        raise RungError(f"{project.folder / ANSWERS_FILE} is not committed. Commit the repo.")


def refuse_hidden(folder: Path) -> None:
    """Even if a sparse checkout skips no file yet, a new file outside could not be committed."""
    setting = ["config", "--type=bool", "--default=false", "--get", "core.sparseCheckout"]
    if git(*setting, cwd=folder) == "true":
        raise RungError(
            f"{folder} is a sparse checkout, where new files may not be committed. Run git "
            "sparse-checkout disable first."
        )
    listed = git_list("ls-files", "-z", "-v", cwd=folder)
    if hidden := [entry[2:] for entry in listed if entry[0] == "S" or entry[0].islower()]:
        raise RungError(
            f"git was told to ignore edits in some files (assume-unchanged or skip-worktree), so "
            f"these edits could be lost: {shown(hidden)}. Undo it with git update-index "
            "--no-assume-unchanged --no-skip-worktree -- FILE."
        )


def _refuse_ignored(project: Project) -> None:
    listed = git_list(
        "-c", "core.excludesFile=",
        *("ls-files", "-z", "--cached", "--ignored", "--exclude-standard"),
        cwd=project.folder,
    )  # fmt: skip
    if listed:
        raise RungError(
            f".gitignore or .git/info/exclude matches committed files, which are easily lost "
            f"({shown(listed)}). Either add them to .gitignore with a leading !, or untrack them: "
            "git rm --cached FILE"
        )


def _refuse_two_heads(project: Project) -> None:
    if len(found := heads(project.folder)) > 1:
        raise RungError(
            f"The migrations have {len(found)} heads ({', '.join(found)}), so the next one has no "
            'single parent. Join them: sh dev/uv run alembic merge heads -m "Merge heads"'
        )


def is_rungs(path: str) -> bool:
    return path.startswith(RUNGS)
