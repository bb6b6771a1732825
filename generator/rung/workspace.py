"""Temporary folders to prepare a step in, and the move of a new project to its place."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rung.errors import UsageError

_PREFIX = ".rung-new-"


@contextmanager
def workspace_for(dest: Path) -> Iterator[Path]:
    """A folder on dest's file system. It is removed at the end, with everything not placed."""
    nearest = _nearest_folder(dest.resolve())
    try:
        workspace = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=nearest))
    except OSError as error:
        error.filename = str(nearest)  # the person did not ask for the workspace
        raise
    with temporary_files_in(workspace):
        try:
            yield workspace
        finally:
            remove(workspace)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Copier then makes its clones there, so they are removed with the folder."""
    system_wide = tempfile.tempdir
    tempfile.tempdir = str(folder)
    try:
        yield
    finally:
        tempfile.tempdir = system_wide


def remove(workspace: Path) -> None:
    for _ in range(50):  # A git that has just been interrupted may still be writing.
        shutil.rmtree(workspace, ignore_errors=True)
        if not workspace.exists():
            return
        time.sleep(0.1)


def _nearest_folder(dest: Path) -> Path:
    """dest itself if it exists: it may be a mount, or the only writable folder."""
    return next(folder for folder in (dest, *dest.parents) if folder.is_dir())


def refuse_occupied(dest: Path, *, beside_workspaces: bool = False) -> None:
    if not os.path.lexists(dest):
        nearest = next(parent for parent in dest.absolute().parents if os.path.lexists(parent))
        if not nearest.is_dir():
            raise UsageError(f"{nearest} is not a folder, so nothing can be created in it.")
        return
    if not dest.is_dir():
        raise UsageError(f"{dest} exists and is not a folder. Choose another place.")
    # On macOS the Finder writes .DS_Store into each folder that it shows.
    found = [child.name for child in dest.iterdir() if child.name != ".DS_Store"]
    if beside_workspaces:
        found = [name for name in found if not name.startswith(_PREFIX)]
    if found:
        raise UsageError(f"{dest} exists and is not empty. Choose another place.")


def place(project: Path, dest: Path) -> None:
    """Move the project to dest. Never replaces a file; takes back only what it has placed."""
    refuse_occupied(dest, beside_workspaces=True)  # Files may have appeared since the check.
    if dest.is_dir():
        with _locked(dest):
            refuse_occupied(dest, beside_workspaces=True)
            _move_children(project, dest.resolve())
        return
    made: list[Path] = []
    try:
        for parent in reversed(dest.absolute().parents):
            with suppress(FileExistsError):
                parent.mkdir()
                made.append(parent)
        project.rename(dest)  # Fails if a file or a folder with files has appeared there.
    except OSError:
        for parent in reversed(made):
            with suppress(OSError):  # Another program has put something there.
                parent.rmdir()
        raise


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two `rung new` into one empty folder place their files one after the other."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _move_children(project: Path, dest: Path) -> None:
    """Keeps the folder itself, because it may be a shell's working directory."""
    moved: list[Path] = []
    try:
        for child in sorted(project.iterdir()):
            _move(child, dest / child.name)
            moved.append(child)
    except OSError:
        for child in reversed(moved):
            (dest / child.name).rename(child)
        raise


def _move(source: Path, target: Path) -> None:
    """Replaces nothing, unlike a plain rename: another program may have created the target."""
    if source.is_dir() and not source.is_symlink():
        target.mkdir()
        try:
            source.rename(target)
        except OSError:
            with suppress(OSError):
                target.rmdir()
            raise
        return
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        raise
    except OSError:  # Not every file system has hard links.
        if os.path.lexists(target):
            raise
        source.rename(target)
        return
    source.unlink()
