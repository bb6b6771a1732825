"""Applies a plan to the work tree: rolls back when it fails, finishes after a kill."""

import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rung.errors import RungError, shown
from rung.git import git, null_terminated, quoted
from rung.scratch import Entry, Scratch
from rung.workspace import remove

_JOURNAL = "journal.json"
_KEYS = {"intent", "record", "head", "tree", "moves"}


@dataclass(frozen=True)
class Move:
    """A path's file before and after."""

    path: str
    before: Entry | None
    after: Entry | None


def apply(
    scratch: Scratch,
    project: Path,
    tree: str,
    moves: Sequence[Move],
    *,
    intent: str,
    record: Path | None = None,
) -> None:
    """Applies a step completely or not. After a kill, the next command finishes the step from the
    journal.

    The journal then becomes the record that `rung undo` reads.
    """
    workspace = scratch.folder
    staged = _stage(scratch, project, tree, moves)
    aside = _set_aside(workspace, project, moves)
    _write_journal(workspace, project, tree, moves, intent, record)
    try:
        _replace(staged, aside, project, moves)
    except OSError:
        (workspace / _JOURNAL).unlink()
        raise
    _close_journal(workspace, record)


def was_cut_short(workspace: Path) -> bool:
    return (workspace / _JOURNAL).exists()


def read_step(journal: Path) -> Mapping[str, Any]:
    try:
        written = journal.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RungError(
            f"{journal} cannot be read: {error.strerror}. Without it Rung does not know what the "
            "last step has changed. Make it readable, or look at git status and remove it."
        ) from error
    with suppress(AttributeError, LookupError, RecursionError, TypeError, ValueError):
        step = json.loads(written)
        read_moves(step)
        if step.keys() >= _KEYS:
            return dict(step)
    raise RungError(
        f"{journal} is broken, so Rung does not know what the last step has changed. Look at git "
        "status, then remove this file."
    )


def read_moves(journal: Mapping[str, Any]) -> list[Move]:
    return [
        Move(path, *(Entry(*side) if side else None for side in (before, after)))
        for path, before, after in journal["moves"]
    ]


def finish(workspace: Path, project: Path) -> str:
    """Finish a step that a kill interrupted; returns the message for the person."""
    journal = read_step(workspace / _JOURNAL)
    moves = read_moves(journal)
    record = Path(journal["record"]) if journal["record"] else None
    pending = [move for move in moves if not is_at(project, move, move.after)]
    foreign = [move.path for move in pending if not is_at(project, move, move.before)]
    if git("rev-parse", "HEAD", cwd=project) != journal["head"]:
        foreign.append("HEAD")
    words = f"{journal['intent']} was interrupted here"
    if not pending or len(pending) == len(moves):
        words += ", after every file had changed." if not pending else ", before it changed a file."
        record = None if pending else record
    elif foreign:
        words += (
            f", and {shown(foreign)} changed since, so the step is not finished. git diff shows "
            "its changes; git restore and git clean undo them."
        )
        record = None
    else:
        staged = _stage(Scratch(workspace, project), project, journal["tree"], pending)
        aside = _set_aside(workspace, project, pending)
        _replace(staged, aside, project, pending)
        words += ". It is now finished."
    _close_journal(workspace, record)
    remove(workspace)
    return words


def _stage(scratch: Scratch, project: Path, tree: str, moves: Iterable[Move]) -> Path:
    """Writes the new files as the person's git would: with its line endings and filters."""
    staged = scratch.folder / "staged"
    index = scratch.folder / "index-staged"
    remove(staged)
    index.unlink(missing_ok=True)
    environment = {
        "GIT_INDEX_FILE": str(index),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": quoted(scratch.objects),
    }
    # From the top, because every .gitattributes from there down to the project counts.
    prefix = git("rev-parse", "--show-prefix", cwd=project)
    top = Path(git("rev-parse", "--show-toplevel", cwd=project))
    git("read-tree", *([f"--prefix={prefix}"] if prefix else []), tree,
        cwd=top, environment=environment)  # fmt: skip
    paths = [f"{prefix}{move.path}" for move in moves if move.after]
    git(
        "checkout-index", "--quiet", "-z", "--stdin", f"--prefix={staged}/",
        cwd=top, environment=environment, stdin=null_terminated(paths),
    )  # fmt: skip
    return staged / prefix


def _set_aside(workspace: Path, project: Path, moves: Sequence[Move]) -> Path:
    aside = workspace / "aside"
    remove(aside)
    for move in moves:
        if move.before:
            (aside / move.path).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(project / move.path, aside / move.path, follow_symlinks=False)
            except OSError:  # Not every file system has hard links.
                shutil.copy2(project / move.path, aside / move.path, follow_symlinks=False)
    return aside


def _write_journal(
    workspace: Path,
    project: Path,
    tree: str,
    moves: Sequence[Move],
    intent: str,
    record: Path | None,
) -> None:
    journal = {
        "intent": intent,
        "record": str(record) if record else None,
        "head": git("rev-parse", "HEAD", cwd=project),
        "tree": tree,
        "moves": [[move.path, _plain(move.before), _plain(move.after)] for move in moves],
    }
    draft = workspace / "journal.draft"
    with draft.open("w", encoding="utf-8") as file:
        json.dump(journal, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(workspace / _JOURNAL)


def _close_journal(workspace: Path, record: Path | None) -> None:
    journal = workspace / _JOURNAL
    if record:
        with suppress(OSError):  # The record may be on another file system than the files.
            journal.replace(record)
            return
        with suppress(OSError):  # Without a record `rung undo` refuses; the step is still complete.
            shutil.copyfile(journal, record)
    journal.unlink()


def _plain(entry: Entry | None) -> list[str] | None:
    return [entry.mode, entry.id] if entry else None


def _replace(staged: Path, aside: Path, project: Path, moves: Sequence[Move]) -> None:
    """Uses only renames and deletes. They need no disk space, and a rename can undo each one."""
    done: list[Move] = []
    made: list[Path] = []
    try:
        for move in moves:
            target = project / move.path
            if move.after:
                _make_folders(target.parent, made)
                (staged / move.path).replace(target)
            else:
                target.unlink(missing_ok=True)
            done.append(move)
    except OSError:
        for move in reversed(done):
            if move.before:
                (aside / move.path).replace(project / move.path)
            else:
                (project / move.path).unlink()
        for folder in reversed(made):
            folder.rmdir()
        raise
    for move in moves:
        if not move.after:
            _remove_empty_folders(project, (project / move.path).parent)


def _make_folders(folder: Path, made: list[Path]) -> None:
    if not folder.exists():
        _make_folders(folder.parent, made)
        folder.mkdir()
        made.append(folder)


def _remove_empty_folders(project: Path, folder: Path) -> None:
    with suppress(OSError):  # The folder is not empty.
        here = Path.cwd()  # As in git, a command does not delete the folder of the person's shell.
        while folder not in (project, here):
            folder.rmdir()
            folder = folder.parent


def is_at(project: Path, move: Move, entry: Entry | None) -> bool:
    """True if the move's path holds this entry now."""
    path = project / move.path
    if entry is None or not os.path.lexists(path):
        return entry is None and not os.path.lexists(path)
    if path.is_symlink():
        stdin = os.fsencode(path.readlink())
        return entry.id == git("hash-object", "--stdin", cwd=project, stdin=stdin)
    if not path.is_file() or entry.id != git("hash-object", "--", move.path, cwd=project):
        return False
    # If only the mode changes, compare the mode too.
    same = move.before is not None and move.after is not None and move.before.id == move.after.id
    return not same or (entry.mode == "100755") == bool(path.stat().st_mode & 0o100)
