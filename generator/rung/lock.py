"""Locks a project against another rung, and first finishes an interrupted step."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rung.apply import finish, was_cut_short
from rung.errors import RungError
from rung.workspace import remove, temporary_files_in


@contextmanager
def locked(folder: Path, git_dir: Path) -> Iterator[None]:
    with _flock(git_dir):
        workspace = _workspace(folder, git_dir)
        if was_cut_short(workspace):
            print(f"rung: {finish(workspace, folder)}", file=sys.stderr)
        yield


def finish_first(folder: Path, git_dir: Path) -> None:
    if was_cut_short(_workspace(folder, git_dir)):
        with locked(folder, git_dir):
            pass


@contextmanager
def workspace_in(folder: Path, git_dir: Path) -> Iterator[Path]:
    """Removed at the end, unless the next command needs it to finish this step."""
    workspace = _workspace(folder, git_dir)
    remove(workspace)
    workspace.mkdir()
    with temporary_files_in(workspace):
        try:
            yield workspace
        finally:
            if not was_cut_short(workspace):
                remove(workspace)


def _workspace(folder: Path, git_dir: Path) -> Path:
    """On the file system of the project's files, because a rename works only within one."""
    near = git_dir.stat().st_dev == folder.stat().st_dev
    return git_dir / "rung" if near else folder / ".rung"


@contextmanager
def _flock(git_dir: Path) -> Iterator[None]:
    descriptor = os.open(git_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RungError(
            "Another rung is running on this repo. Wait until it has finished."
        ) from error
    finally:
        os.close(descriptor)
