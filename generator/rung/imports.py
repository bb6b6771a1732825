"""Finds the team's files that import what a step would delete."""

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rung.git import git_list
from rung.project import is_rungs
from rung.reading import UnreadableError, read_bytes


def importers(project: Path, deleted: Iterable[str]) -> Iterator[str]:
    """The files of the team that import a deleted Python file."""
    names = "|".join(re.escape(module_of(path)) for path in deleted if path.endswith(".py"))
    imports = re.compile(rf"^\s*(from|import)\s+({names})\b".encode(), re.MULTILINE)
    for path in git_list("ls-files", "-z", "--", "*.py", cwd=project) if names else ():
        with suppress(UnreadableError):  # a link, or too large to be code
            if not is_rungs(path) and imports.search(read_bytes(project / path)):
                yield path


def module_of(path: str) -> str:
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
