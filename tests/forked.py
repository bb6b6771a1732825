"""Runs `rung` or `copier` in a process that has imported its packages already."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import IO, Any

FORKSERVER = get_context("forkserver")
# What they import. Not Plumbum, which reads the environment when it is imported, and not Copier,
# which imports Plumbum.
FORKSERVER.set_forkserver_preload(
    [
        *("typer", "questionary", "pydantic.dataclasses", "pydantic.json_schema", "jinja2.ext"),
        *("yaml", "pathspec", "dunamai", "funcy", "platformdirs", "pygments.lexers.data"),
    ]
)


def run(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], patience: float
) -> subprocess.CompletedProcess[str]:
    """As `subprocess.run`, with nothing to read from stdin."""
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        files: list[Any] = [DupFd(file.fileno()) for file in (output, errors)]
        process = FORKSERVER.Process(target=_main, args=(words, folder, dict(environment), files))
        process.start()
        process.join(patience)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(words, patience, _content(output), _content(errors))
        said = _content(output), _content(errors)
        return subprocess.CompletedProcess(words, process.exitcode, *said)


def can_run(program: str, environment: Mapping[str, str]) -> bool:
    """False for any other program, and where a variable acts on the start of Python."""
    name = Path(program).name
    is_ours = name in PROGRAMS and Path(sys.executable).with_name(name) == Path(program)
    return is_ours and not any(
        environment.get(name) != os.environ.get(name)
        for name in environment.keys() | os.environ.keys()
        if name.startswith(("PYTHON", "LANG", "LC_", "LOCPATH"))
    )


def _content(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="backslashreplace")


def _main(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], files: Sequence[Any]
) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(file.detach(), number)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = list(words)
    try:
        PROGRAMS[Path(words[0]).name]()
    except Exception:
        sys.excepthook(*sys.exc_info())
        sys.exit(1)


def _rung() -> None:
    from rung.__main__ import main

    main()


def _copier() -> None:
    from copier._cli import CopierApp
    from copier._main import Worker

    # It asks git for core.fileMode after each file: a third of the time.
    Worker._sync_git_index_executable_bit = lambda *_: None  # type: ignore[method-assign]
    CopierApp.run()


PROGRAMS = {"rung": _rung, "copier": _copier}
