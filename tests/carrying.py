"""The ways to advance a project: Copier in process, plain Copier, and rung."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import forked
from copier import VcsRef, run_update
from people import COPIER, PATIENCE, RUNG
from plumbum import local
from variants import OPTIONS, offered

type Way = Callable[[Path, Mapping[str, Any]], None]


def in_process(project: Path, answers: Mapping[str, Any]) -> None:
    # plumbum copies the environment at its import, before the tests set their variables.
    with local.env(**os.environ):
        run_update(
            project,
            data=dict(answers),
            defaults=True,
            overwrite=True,
            vcs_ref=VcsRef.CURRENT,
            context_lines=100_000,
            quiet=True,
        )


def with_copier(project: Path, answers: Mapping[str, Any]) -> None:
    """Plain Copier with its default of three lines of context."""
    _run(project, COPIER, "update", "--defaults", "--vcs-ref=:current:", *_data(answers))


def with_rung(project: Path, answers: Mapping[str, Any]) -> None:
    stage = answers["stage"]
    options = {name: answer for name, answer in answers.items() if name in OPTIONS}
    asked = {name: answer for name, answer in options.items() if offered(name, stage)}
    _run(project, RUNG, "advance", "--to", str(stage), "--yes", *_data(asked))


WAYS: dict[str, Way] = {"in process": in_process, "copier": with_copier, "rung": with_rung}


def advance(project: Path, answers: Mapping[str, Any], way: Way = in_process) -> None:
    """Takes a committed project to that stage with those options. Commits nothing."""
    way(project, answers)


def _data(answers: Mapping[str, Any]) -> list[str]:
    return [f"--data={name}={str(answer).lower()}" for name, answer in answers.items()]


def _run(project: Path, *words: str | Path) -> None:
    done = forked.run([str(word) for word in words], project, os.environ, PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
