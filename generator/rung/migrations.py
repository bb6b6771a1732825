"""Finds the heads of a project's Alembic migrations without running its code."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

from rung.reading import UnreadableError, read_bytes


def heads(project: Path) -> list[str]:
    """The revisions that no other revision follows."""
    revisions: set[str] = set()
    followed: set[str] = set()
    for file in sorted((project / "migrations" / "versions").glob("*.py")):
        named = dict(_assignments(file))
        if isinstance(revision := named.get("revision"), str):
            revisions.add(revision)
            followed |= _several(named.get("down_revision"))
    return sorted(revisions - followed)


def _assignments(file: Path) -> Iterator[tuple[str, object]]:
    try:
        with warnings.catch_warnings(action="ignore"):
            body = ast.parse(read_bytes(file)).body
    except (UnreadableError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # The project's own tests report it better.
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        if name in {"revision", "down_revision"}:
            try:
                yield name, ast.literal_eval(value)
            except (ValueError, TypeError, RecursionError, MemoryError):
                continue


def _several(revision: object) -> set[str]:
    if isinstance(revision, str):
        return {revision}
    if isinstance(revision, (tuple, list, set)):
        return {one for one in revision if isinstance(one, str)}
    return set()
