import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def workspace_for(dest: Path) -> Iterator[Path]:
    """A folder on dest's file system, gone at the end with all that was not placed."""
    workspace = Path(tempfile.mkdtemp(prefix=".rung-new-", dir=_nearest_folder(dest.resolve())))
    with temporary_files_in(workspace):
        try:
            yield workspace
        finally:
            remove(workspace)


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Copier's clones too go when the folder goes."""
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
    """dest itself where it exists: it may be a mount, or all that one may write to."""
    return next(folder for folder in (dest, *dest.parents) if folder.is_dir())


def place(project: Path, dest: Path) -> None:
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
