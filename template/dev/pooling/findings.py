# Rung's file: advancing to another stage may change it.
"""The findings of a linter of app/, and how they are reported."""

import ast
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

APP = Path("app")


class Finding(NamedTuple):
    line: int
    problem: str


def report(find: Callable[[str], Iterable[Finding]], *, ending: str) -> None:
    """Exits with 1 if there are any. `ending` says what they have in common."""
    findings = [
        f"{file}:{line}: {problem}"
        for file in sorted(APP.rglob("*.py"))
        for line, problem in find(file.read_text(encoding="utf-8"))
    ]
    if findings:
        sys.exit("\n".join([*findings, ending]))


def name_of(node: ast.expr) -> str:
    match node:
        case ast.Attribute(attr=name) | ast.Name(id=name):
            return name
        case _:
            return ""
