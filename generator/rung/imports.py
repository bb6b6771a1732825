"""Finds the team's files that import what a step would delete."""

import ast
import warnings
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rung.git import git_list
from rung.project import is_rungs
from rung.reading import UnreadableError, read_bytes


def importers(project: Path, deleted: Iterable[str], added: Iterable[str]) -> Iterator[str]:
    """The files of the team that import a deleted Python file."""
    gone = modules(deleted) - modules(added)  # x.py may have become x/__init__.py
    for path in git_list("ls-files", "-z", "--", "*.py", cwd=project) if gone else ():
        # A link, too large to be code, or no Python of this version.
        with suppress(UnreadableError, SyntaxError, ValueError, RecursionError, MemoryError):
            if not is_rungs(path) and not gone.isdisjoint(imported(project, path)):
                yield path


def imported(project: Path, path: str) -> Iterator[str]:
    """Each module that the file may import: `from a import b` names a and a.b."""
    with warnings.catch_warnings(action="ignore"):  # Python's, about the team's code
        tree = ast.parse(read_bytes(project / path))
    folders = Path(path).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = folders[: len(folders) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield module
            yield from (f"{module}.{one.name}" for one in node.names)


def modules(paths: Iterable[str]) -> set[str]:
    files = (path.removesuffix(".py") for path in paths if path.endswith(".py"))
    return {file.removesuffix("/__init__").replace("/", ".") for file in files}
