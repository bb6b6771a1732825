"""Undoes the last step, if nothing was changed since."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rung import git
from rung.apply import Move, apply, is_at, read_moves, read_step
from rung.errors import RungError, reason_of, shown
from rung.interrupts import Interrupts
from rung.lock import locked, workspace_in
from rung.project import locate, refuse_hidden, refuse_operation_under_way
from rung.scratch import Scratch

_EMPTY_BLOBS = ("e69de29bb2d1", "473a0f4c3be8")  # As `git add -N` records them, SHA-1 and SHA-256.


def record_of(folder: Path, git_dir: Path) -> Path:
    """The file that records the last step. One git directory can hold several projects."""
    prefix = git.git("rev-parse", "--show-prefix", cwd=folder)
    project = f"-{hashlib.sha256(prefix.encode(errors='replace')).hexdigest()[:12]}"
    return git_dir / f"rung-undo{project if prefix else ''}.json"


def record_commit(folder: Path, record: Path) -> None:
    """Adds the step's commit to the record."""
    with suppress(OSError):  # The commit is valid without a record.
        step = json.loads(record.read_bytes())
        step["commit"] = git.git("rev-parse", "HEAD", cwd=folder)
        record.write_text(json.dumps(step), encoding="utf-8")


def commit_paths(folder: Path, paths: Sequence[str], message: str) -> None:
    """Commit these paths and nothing else that is staged."""
    listed = ["--pathspec-from-file=-", "--pathspec-file-nul"]
    literally = {"GIT_LITERAL_PATHSPECS": "1"}
    stdin = git.null_terminated(paths)
    commit = ["commit", "--quiet", "--no-verify", "--only", f"--message={message}"]
    try:
        for words in (["add", "--all", "--force"], commit):
            git.git(*words, *listed, cwd=folder, stdin=stdin, environment=literally)
    except git.GitError:
        with suppress(git.GitError):  # If git cannot write the index, it did not change.
            _unstage(folder, paths)
        raise


def take_back(folder: Path, git_dir: Path, moves: Sequence[Move], name: str) -> None:
    """Puts back the files of a step that git cannot commit."""
    _refuse_edited(folder, moves, name)
    head = git.git("rev-parse", "HEAD", cwd=folder)
    back = [Move(move.path, move.after, move.before) for move in moves]
    _put_back(folder, git_dir, head, back, name)
    record_of(folder, git_dir).unlink(missing_ok=True)


def undo(path: Path, interrupts: Interrupts) -> str:
    """Undo the last step; returns the message for the person."""
    try:
        with interrupts.allowed():
            git.fence()
            folder, git_dir = locate(path)
        with locked(folder, git_dir):
            with interrupts.allowed():
                record = record_of(folder, git_dir)
                step = _read(record)
                name = str(step["intent"]).removeprefix("The step to ")
                _refuse_moved_on(folder, step, name)
                moves = read_moves(step)
                if "commit" in step:
                    refuse_hidden(folder)
                    refuse_operation_under_way(folder, git_dir)
                _refuse_edited(folder, moves, name)
                _refuse_staged(folder, moves, name)
                if "commit" in step:
                    git.require_identity(folder, otherwise="run git revert yourself")
            pending = [
                Move(move.path, move.after, move.before)
                for move in moves
                if not is_at(folder, move, move.before)
            ]
            _restore(folder, git_dir, step, pending, name)
            record.unlink()
    except KeyboardInterrupt as interrupt:
        raise RungError("Stopped. Nothing was changed.") from interrupt
    except OSError as error:
        raise RungError(f"The step cannot be undone: {reason_of(error)}.") from error
    return f"The step to {name} is undone" + (", in a new commit." if "commit" in step else ".")


def _read(record: Path) -> Mapping[str, Any]:
    try:
        return read_step(record)
    except FileNotFoundError as error:
        raise RungError(
            "There is no step to undo: rung advance and rung upgrade have changed nothing in this "
            "clone, or the step was undone already."
        ) from error


def _refuse_moved_on(folder: Path, step: Mapping[str, Any], name: str) -> None:
    head = git.git("rev-parse", "HEAD", cwd=folder)
    commit = step.get("commit")
    if head == (commit or step["head"]):
        return
    if not commit:
        back = "If you committed the step, revert that commit: git revert COMMIT"
    elif _is_in_history(folder, commit):
        back = f"To undo its commit alone: git revert {commit[:12]}"
    else:
        back = (
            f"Its commit {commit[:12]} is not in this branch. If you have amended or rebased it, "
            "revert the new commit: git revert COMMIT. If another branch has it, switch to that. "
            "If you have reset it away, nothing is left to undo."
        )
    raise RungError(f"HEAD has changed since the step to {name}. {back}")


def _is_in_history(folder: Path, commit: str) -> bool:
    try:
        git.git("merge-base", "--is-ancestor", commit, "HEAD", cwd=folder)
    except git.GitError:
        return False
    return True


def _refuse_edited(folder: Path, moves: Sequence[Move], name: str) -> None:
    edited = [
        move.path
        for move in moves
        if not is_at(folder, move, move.after) and not is_at(folder, move, move.before)
    ]
    if edited:
        raise RungError(
            f"Edited since the step to {name}: {shown(edited, most=20)}. Nothing was changed. Save "
            "your edits elsewhere and undo them here, or undo the step by hand with git restore."
        )


def _refuse_staged(folder: Path, moves: Sequence[Move], name: str) -> None:
    """Staged content that differs from both sides of the step exists only in the index."""
    listed = git.git_list("ls-files", "-z", "--stage", cwd=folder)
    entries = [line.split("\t", 1) for line in listed]
    staged = {path: meta.split()[1] for meta, path in entries if meta.endswith(" 0")}
    known = {move.path: {side.id for side in (move.before, move.after) if side} for move in moves}
    foreign = [
        path
        for path, id_ in staged.items()
        if path in known and id_ not in known[path] and not id_.startswith(_EMPTY_BLOBS)
    ]
    if foreign:
        raise RungError(
            f"Staged since the step to {name}, with other content than the step's: "
            f"{shown(foreign, most=20)}. Nothing was changed. Commit or unstage it first."
        )


def _restore(
    folder: Path, git_dir: Path, step: Mapping[str, Any], moves: Sequence[Move], name: str
) -> None:
    _put_back(folder, git_dir, step["head"], moves, name)
    paths = [move.path for move in read_moves(step)]
    try:
        if "commit" in step:
            # git log would obey the person's log.* settings, such as log.showSignature.
            said = git.git("rev-list", "--max-count=1", "--format=%s", "HEAD", cwd=folder)
            subject = said.splitlines()[-1]
            commit_paths(folder, paths, f'Undo "{subject}"')
        else:
            # rung prints `git add -N FOLDER` for the review, which also adds the person's files.
            by_intent = ["diff-files", "-z", "--name-only", "--relative", "--diff-filter=A"]
            _unstage(folder, paths + git.git_list(*by_intent, cwd=folder))
    except git.GitError as error:
        raise RungError(
            f"The files are as before the step to {name}, but {error}. Remove the cause, then run "
            "rung undo again."
        ) from error


def _put_back(folder: Path, git_dir: Path, head: str, moves: Sequence[Move], name: str) -> None:
    prefix = git.git("rev-parse", "--show-prefix", cwd=folder)
    before = git.git("rev-parse", f"{head}:{prefix}", cwd=folder)
    with workspace_in(folder, git_dir) as workspace:
        intent = f"Undoing the step to {name}"
        apply(Scratch(workspace, folder), folder, before, moves, intent=intent)


def _unstage(folder: Path, paths: Sequence[str]) -> None:
    git.git(
        *("reset", "--quiet", "--pathspec-from-file=-", "--pathspec-file-nul"),
        cwd=folder,
        stdin=git.null_terminated(paths),
        environment={"GIT_LITERAL_PATHSPECS": "1"},
    )
