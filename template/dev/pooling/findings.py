# Rung's file: advancing to another stage may change it.
"""The findings of a linter of app/, and how they are reported."""

import ast
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

APP = Path("app")

type Function = ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    line: int
    problem: str


def report(find: Callable[[str], Iterable[Finding]], *, ending: str) -> None:
    """Exits with 1 if there are any. `ending` is the explanation that all of them share."""
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


def root_of(node: ast.expr) -> str:
    """The name that `a.b[c]` begins with."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return name_of(node)


def functions_in(tree: ast.AST) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def calls_in(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))
