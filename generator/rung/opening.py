"""Who may work on a project, and where; what was cut short there before is first made good."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rung.errors import RungError
from rung.switch import make_good, was_cut_short
from rung.workspace import remove, temporary_files_in


@contextmanager
def alone(folder: Path, git_dir: Path) -> Iterator[None]:
    """Locked against another rung, and with nothing half done."""
    with _locked(git_dir):
        workspace = _workspace(folder, git_dir)
        if was_cut_short(workspace):
            print(f"rung: {make_good(workspace, folder)}", file=sys.stderr)
        yield


def finish_before(folder: Path, git_dir: Path) -> None:
    if was_cut_short(_workspace(folder, git_dir)):
        with alone(folder, git_dir):
            pass


@contextmanager
def workspace_in(folder: Path, git_dir: Path) -> Iterator[Path]:
    """Gone at the end, unless what lies there is needed to make good what was cut short."""
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
    """On the file system that files must be moved on."""
    near = git_dir.stat().st_dev == folder.stat().st_dev
    return git_dir / "rung" if near else folder / ".rung"


@contextmanager
def _locked(git_dir: Path) -> Iterator[None]:
    descriptor = os.open(git_dir, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise RungError(
            "Another rung is at work on this project. Wait until it is done."
        ) from error
    finally:
        os.close(descriptor)
