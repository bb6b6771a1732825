# Rung's file: advancing to another stage may change it.
"""Finds where code of a module that moves still uses a session of the common database."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from dev.module_databases import code, own
from dev.module_databases.borders import COMMON_SESSION, Crossing, module_of
from dev.pooling.findings import Function, calls_in, functions_in, name_of, root_of

ANNOTATION = re.compile(r"\b(?:ReadSession|WriteSession|read_session|write_session)\b")
ROUTE = re.compile(r"\.(?:get|post|put|patch|delete|head|options|api_route|websocket)\(")


def crossings(moving: Collection[str] = ()) -> list[Crossing]:
    """All crossings in the code, with these of each module in `moving` or with its own history."""
    found = code.crossings()
    modules = {*moving, *own.with_history()}
    places = {(one.file, one.line) for one in found}
    trees = {
        path.as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in Path("app").rglob("*.py")
        if not path.is_relative_to("app/infra")
    }
    calls = (call for tree in trees.values() for call in calls_in(tree))
    given = {name_of(one.args[0]) for one in calls if name_of(one.func) == "Depends" and one.args}
    for file, tree in trees.items():
        for line, module in set(_uses(tree, module_of(file), given)):
            if module in modules and (file, line) not in places:
                name = code.name_at(tree, line)
                found.append(Crossing.of(COMMON_SESSION, file, line, name, {module}))
    return sorted(found, key=lambda one: (one.file, one.line))


def _uses(
    tree: ast.Module, here: str | None, given: Collection[str]
) -> Iterator[tuple[int, str | None]]:
    """Each line with the module that it is for: the one of this file, or another one that gets a
    session or a reader from here."""
    imports, known = code.imports_in(tree), set[ast.expr]()

    def handed(scope: ast.AST) -> Iterator[tuple[int, str, ast.expr]]:
        for call in calls_in(scope):
            other = module_of(imports.get(root_of(call.func), ""))
            if other and other != here:
                for one in (*call.args, *(keyword.value for keyword in call.keywords)):
                    yield call.lineno, other, one

    def is_used(name: str, scope: ast.AST, helpers: dict[str, Function]) -> bool:
        """Whether this file itself uses the session, and not only other modules that get it."""
        names = [one for one in ast.walk(scope) if isinstance(one, ast.Name) and one.id == name]
        uses = sum(isinstance(one.ctx, ast.Load) for one in names)
        uses -= sum(code.is_session(one, {name}) for _, _, one in handed(scope))
        for call in calls_in(scope):
            if helper := helpers.get(name_of(call.func)):
                others = {key: one for key, one in helpers.items() if one is not helper}
                uses -= sum(
                    code.is_session(one, {name}) and not is_used(parameter, helper, others)
                    for parameter, one in _arguments(call, helper)
                )
        return uses > 0

    helpers = {function.name: function for function in functions_in(tree)}
    for line, is_given, name, scope in _sessions(tree, given, known):
        yield from (use[:2] for use in handed(scope) if code.is_session(use[2], {name}))
        if is_given and is_used(name, scope, helpers):
            yield line, here
    for line, other, one in handed(tree):
        if database := _database_of(one, "reader"):
            known.add(database)
            yield line, other
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=func, args=[query, *_]) if name_of(func) == "of_user":
                yield node.lineno, module_of(imports.get(root_of(query), "")) or here
            case ast.Assign(value=value) | ast.TypeAlias(value=value):
                if ANNOTATION.search(ast.unparse(value)):
                    yield node.lineno, here
            case ast.Attribute(attr="database", value=ast.Attribute(attr="state")):
                if node not in known:
                    yield node.lineno, here


def _sessions(
    tree: ast.Module, given: Collection[str], known: set[ast.expr]
) -> Iterator[tuple[int, bool, str, ast.AST]]:
    """The line, the name and the scope of each session, and whether FastAPI or this code gives it.
    The caller of another function decides what it gets, whatever the annotation is."""
    for function in functions_in(tree):
        is_route = any(ROUTE.search(ast.unparse(one)) for one in function.decorator_list)
        is_given = is_route or function.name in {*given, "__init__"}
        for one in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs):
            if one.annotation and ANNOTATION.search(ast.unparse(one.annotation)):
                yield one.lineno, is_given, one.arg, function
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With | ast.AsyncWith) else ():
            database = _database_of(item.context_expr, "transaction")
            if database and isinstance(item.optional_vars, ast.Name):
                known.add(database)
                yield item.context_expr.lineno, True, item.optional_vars.id, node


def _arguments(call: ast.Call, function: Function) -> Iterator[tuple[str, ast.expr]]:
    """With the names of the function's parameters."""
    parameters = [*function.args.posonlyargs, *function.args.args]
    yield from ((one.arg, value) for one, value in zip(parameters, call.args, strict=False))
    yield from ((one.arg, one.value) for one in call.keywords if one.arg)


def _database_of(expression: ast.expr, method: str) -> ast.expr | None:
    """`app.state.database` of `app.state.database.reader()`."""
    match expression:
        case ast.Call(func=ast.Attribute(attr=name, value=value), args=[]) if name == method:
            if name_of(value) == "database":
                return value
    return None
