import ast
from collections.abc import Iterator
from pathlib import Path


def heads(project: Path) -> list[str]:
    """The revisions that no other comes after, read without running a line of the project's."""
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
        body = ast.parse(file.read_bytes()).body
    except SyntaxError:
        return  # The project's own tests will say so better.
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
            except ValueError:
                continue


def _several(revision: object) -> set[str]:
    if isinstance(revision, str):
        return {revision}
    if isinstance(revision, (tuple, list, set)):
        return {one for one in revision if isinstance(one, str)}
    return set()
