"""Carrying a result into the work tree: undone when it fails, finished when it was killed."""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rung.git import git
from rung.project import shown
from rung.scratch import Entry, Scratch
from rung.workspace import remove

_JOURNAL = "journal.json"


@dataclass(frozen=True)
class Move:
    """A path's file before and after."""

    path: str
    before: Entry | None
    after: Entry | None


def switch(
    scratch: Scratch, project: Path, tree: str, moves: Sequence[Move], *, intent: str
) -> None:
    """All or nothing, and once the journal is written a kill is made good by the next command."""
    workspace = scratch.folder
    staged = _stage(scratch, project, tree, moves)
    aside = _set_aside(workspace, project, moves)
    _write_journal(workspace, project, tree, moves, intent)
    try:
        _replace(staged, aside, project, moves)
    except OSError:
        (workspace / _JOURNAL).unlink()
        raise
    (workspace / _JOURNAL).unlink()


def was_cut_short(workspace: Path) -> bool:
    return (workspace / _JOURNAL).exists()


def make_good(workspace: Path, project: Path) -> str:
    """Finish what a kill cut short; answers with what there is to say about it."""
    journal = json.loads((workspace / _JOURNAL).read_bytes())
    moves = [
        Move(path, *(Entry(*side) if side else None for side in (before, after)))
        for path, before, after in journal["moves"]
    ]
    pending = [move for move in moves if not _is(project, move, move.after)]
    foreign = [move.path for move in pending if not _is(project, move, move.before)]
    if git("rev-parse", "HEAD", cwd=project) != journal["head"]:
        foreign.append("HEAD")
    said = f"{journal['intent']} was cut short here"
    if not pending or len(pending) == len(moves):
        said += ", with every file changed." if not pending else ", before it changed a file."
    elif foreign:
        said += (
            f", and {shown(foreign)} changed since, so it is left as it is. git diff shows how "
            "far it came; git restore and git clean take it back."
        )
    else:
        staged = _stage(Scratch(workspace, project), project, journal["tree"], pending)
        aside = _set_aside(workspace, project, pending)
        _replace(staged, aside, project, pending)
        said += ". It is now finished."
    (workspace / _JOURNAL).unlink()
    remove(workspace)
    return said


def _stage(scratch: Scratch, project: Path, tree: str, moves: Iterable[Move]) -> Path:
    """The new files as the person's git would write them: line endings, filters."""
    staged = scratch.folder / "staged"
    index = scratch.folder / "index-staged"
    remove(staged)
    index.unlink(missing_ok=True)
    environment = {
        "GIT_INDEX_FILE": str(index),
        "GIT_ALTERNATE_OBJECT_DIRECTORIES": _quoted(scratch.objects),
    }
    # The path from the top counts, for .gitattributes may lie there and on the way.
    prefix = git("rev-parse", "--show-prefix", cwd=project)
    top = Path(git("rev-parse", "--show-toplevel", cwd=project))
    git("read-tree", *([f"--prefix={prefix}"] if prefix else []), tree,
        cwd=top, environment=environment)  # fmt: skip
    paths = [f"{prefix}{move.path}\0" for move in moves if move.after]
    git(
        "checkout-index", "--quiet", "-z", "--stdin", f"--prefix={staged}/",
        cwd=top, environment=environment, stdin=os.fsencode("".join(paths)),
    )  # fmt: skip
    return staged / prefix


def _quoted(folder: Path) -> str:
    escaped = str(folder).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _set_aside(workspace: Path, project: Path, moves: Sequence[Move]) -> Path:
    aside = workspace / "aside"
    remove(aside)
    for move in moves:
        if move.before:
            (aside / move.path).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(project / move.path, aside / move.path, follow_symlinks=False)
            except OSError:  # Not every file system links.
                shutil.copy2(project / move.path, aside / move.path, follow_symlinks=False)
    return aside


def _write_journal(
    workspace: Path, project: Path, tree: str, moves: Sequence[Move], intent: str
) -> None:
    journal = {
        "intent": intent,
        "head": git("rev-parse", "HEAD", cwd=project),
        "tree": tree,
        "moves": [[move.path, _plain(move.before), _plain(move.after)] for move in moves],
    }
    draft = workspace / "journal.draft"
    with draft.open("w") as file:
        json.dump(journal, file)
        file.flush()
        os.fsync(file.fileno())
    draft.rename(workspace / _JOURNAL)


def _plain(entry: Entry | None) -> list[str] | None:
    return [entry.mode, entry.id] if entry else None


def _replace(staged: Path, aside: Path, project: Path, moves: Sequence[Move]) -> None:
    """Renames and removals alone, which need no room; each can be taken back by a rename."""
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
    with suppress(OSError):  # It holds something else.
        while folder != project:
            folder.rmdir()
            folder = folder.parent


def _is(project: Path, move: Move, entry: Entry | None) -> bool:
    path = project / move.path
    if entry is None or not os.path.lexists(path):
        return entry is None and not os.path.lexists(path)
    if path.is_symlink():
        stdin = os.fsencode(path.readlink())
        return entry.id == git("hash-object", "--stdin", cwd=project, stdin=stdin)
    if not path.is_file() or entry.id != git("hash-object", "--", move.path, cwd=project):
        return False
    # Where only the mode changes it must tell the two apart.
    same = move.before is not None and move.after is not None and move.before.id == move.after.id
    return not same or (entry.mode == "100755") == bool(path.stat().st_mode & 0o100)
