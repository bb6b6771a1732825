# Rung's file: advancing to another stage may change it.
"""Finds crossings of a module's border in the code, without running it."""

import ast
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from sqlalchemy import Table
from sqlalchemy.sql import visitors

from app.infra.reads import Query
from app.infra.tables import Base
from dev.module_databases.borders import Crossing, import_app, module_of, modules_in, owners
from dev.pooling.findings import Function, calls_in, functions_in, name_of, root_of

BUILDERS = {"select", "insert", "update", "delete", "exists"}
LOOKS_LIKE_SQL = re.compile(
    r"\b(?:SELECT|INSERT|UPDATE|DELETE|MERGE|TRUNCATE)\b"
    r"|\A\s*(?:LOCK|(?i:select|insert|update|delete|merge|table|with))\b"
)
SESSION = re.compile(r"(Write|WriteSession|AsyncSession)\b")


def crossings() -> list[Crossing]:
    """All crossings in app/, by file and line."""
    import_app()
    owner_of = owners()
    found = {*_in_models(owner_of), *_in_queries(owner_of)}
    for path in sorted(Path("app").rglob("*.py")):
        if not path.is_relative_to("app/infra"):
            found.update(_in_file(path, owner_of))
    return sorted(found, key=lambda one: (one.file, one.line))


def _in_models(owner_of: Mapping[str, str]) -> Iterator[Crossing]:
    for mapper in Base.registry.mappers:
        table = mapper.local_table
        if not isinstance(table, Table) or table.fullname not in owner_of:
            continue
        targets = [
            ("foreign key", key.parent.name, key.target_fullname.rpartition(".")[0])
            for key in table.foreign_keys
        ]
        for relationship in mapper.relationships:
            target = relationship.mapper.local_table
            if isinstance(target, Table):
                targets.append(("relationship", relationship.key, target.fullname))
        own = owner_of[table.fullname]
        for kind, field, name in targets:
            if (other := owner_of.get(name, own)) != own:
                yield _in_class(kind, mapper.class_, field, {own, other})


def _in_class(kind: str, model: type, field: str, modules: set[str]) -> Crossing:
    lines, first = inspect.getsourcelines(model)
    places = (n for n, line in enumerate(lines) if re.match(rf"\s+{field}\b", line))
    line, name = first + next(places, 0), f"{model.__name__}.{field}"
    return Crossing.of(kind, _file(model.__module__), line, name, modules)


def _in_queries(owner_of: Mapping[str, str]) -> Iterator[Crossing]:
    for query in Query.declared:
        python_module, _, line = query.declared_at.partition(":")
        modules = {
            owner_of[element.fullname]
            for _, form in query.forms()
            for element in visitors.iterate(form.statement)
            if isinstance(element, Table) and element.fullname in owner_of
        }
        if module_of(python_module) and len(modules) > 1:
            file = _file(python_module)
            name = name_at(ast.parse(Path(file).read_text(encoding="utf-8")), int(line))
            yield Crossing.of("statement", file, int(line), name, modules)


def _in_file(path: Path, owner_of: Mapping[str, str]) -> Iterator[Crossing]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    file, own, imports = path.as_posix(), module_of(path.as_posix()), imports_in(tree)
    with_tables = set(owner_of.values())
    model_of = {
        mapper.class_.__name__: owner_of[mapper.local_table.fullname]
        for mapper in Base.registry.mappers
        if isinstance(mapper.local_table, Table) and mapper.local_table.fullname in owner_of
    }
    local = {name: owner for name, owner in model_of.items() if name in imports or own == owner}
    found = [
        ("transaction", line, modules)
        for function in functions_in(tree)
        for line, modules in _handed(function, own, imports, with_tables)
    ]
    found += [("statement", line, modules) for line, modules in _statements(tree, local)]
    found += [("statement", line, modules_in(text, owner_of)) for line, text in _texts(tree)]
    for kind, line, modules in found:
        if len(modules) > 1:
            yield Crossing.of(kind, file, line, name_at(tree, line), modules)


def _handed(
    function: Function, own: str | None, imports: Mapping[str, str], with_tables: set[str]
) -> Iterator[tuple[int, set[str]]]:
    """Where a function hands its transaction to another module. A file outside the modules, such as
    a seed, may hand it to one module, but not to two."""
    for block, sessions in _transactions(function):
        touched = {own} if own in with_tables else set()
        for call in sorted(calls_in(block), key=lambda call: call.lineno):
            other = module_of(imports.get(root_of(call.func), ""))
            invalidates = isinstance(call.func, ast.Attribute) and call.func.attr == "invalidate"
            if other not in with_tables or other is None or invalidates:
                continue
            given = [*call.args, *(keyword.value for keyword in call.keywords)]
            if any(is_session(one, sessions) for one in given) and other not in touched:
                yield call.lineno, {other, *touched}
                if own not in with_tables:
                    touched.add(other)


def _transactions(function: Function) -> Iterator[tuple[ast.AST, set[str]]]:
    """The function with the sessions that it is given, and each block that opens one: two blocks
    are two transactions, also if both call it `write`."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    annotated = ((one.arg, one.annotation) for one in arguments if one.annotation)
    yield function, {name for name, kind in annotated if SESSION.search(ast.unparse(kind))}
    for node in ast.walk(function):
        if isinstance(node, ast.AsyncWith):
            yield node, set(_opened(node))


def _opened(block: ast.AsyncWith) -> Iterator[str]:
    for item in block.items:
        match item:
            case ast.withitem(ast.Call(func=opened), ast.Name(id=name)):
                if name_of(opened) == "transaction":
                    yield name


def is_session(given: ast.expr, sessions: set[str]) -> bool:
    """`write`, or in_transaction(write)."""
    if isinstance(given, ast.Call) and name_of(given.func) == "in_transaction" and given.args:
        given = given.args[0]
    return isinstance(given, ast.Name) and given.id in sessions


def _statements(tree: ast.Module, model_of: Mapping[str, str]) -> Iterator[tuple[int, set[str]]]:
    """Statements that functions build. Those at module level become a Query, or a part of one."""
    for function in functions_in(tree):
        for statement in ast.walk(function):
            if isinstance(statement, ast.stmt):
                for part in ast.iter_child_nodes(statement):
                    if isinstance(part, ast.expr) and _builds(part):
                        names = {n.id for n in ast.walk(part) if isinstance(n, ast.Name)}
                        yield part.lineno, {model_of[name] for name in names & model_of.keys()}


def _builds(expression: ast.expr) -> bool:
    return any(name_of(call.func) in BUILDERS for call in calls_in(expression))


def _texts(node: ast.AST, *, is_part: bool = False) -> Iterator[tuple[int, str]]:
    """SQL in strings. A string that stands alone is a docstring. One that `is_part` of another was
    read with it."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return
    text = _text(node) if isinstance(node, ast.expr) else ""
    if isinstance(node, ast.expr) and not is_part and LOOKS_LIKE_SQL.search(text):
        yield node.lineno, text
    for child in ast.iter_child_nodes(node):
        yield from _texts(child, is_part=bool(text))


def _text(node: ast.expr) -> str:
    """Of a string, or of one that is built: `_` stands for a part that only a run knows."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(_text(part) or "_" for part in parts)
        case ast.FormattedValue(value=value):
            return _text(value)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            texts = _text(left), _text(right)
            return "".join(text or "_" for text in texts) if any(texts) else ""
    return ""


def imports_in(tree: ast.Module) -> dict[str, str]:
    """The import behind each name: catalog of `from app.catalog import service as catalog`."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            found.update({alias.asname: alias.name for alias in node.names if alias.asname})
    return found


def name_at(tree: ast.Module, line: int) -> str:
    """The function around a line, or the variable or key at module level."""
    names: list[str] = []
    inside: ast.AST | None = tree
    while inside is not None:
        around = (
            node
            for node in ast.iter_child_nodes(inside)
            if getattr(node, "lineno", line + 1) <= line <= (getattr(node, "end_lineno", 0) or 0)
        )
        inside = next(around, None)
        match inside:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                names.append(name)
            case ast.ClassDef(name=name):
                names.append(name)
            case ast.Assign(targets=[ast.Name(id=name)]) if not names:
                names.append(name)
            case ast.AnnAssign(target=ast.Name(id=name)) if not names:
                names.append(name)
            case ast.Dict(keys=keys, values=values):
                for key, value in zip(keys, values, strict=True):
                    if key and value.lineno <= line <= (value.end_lineno or 0):
                        names.append(ast.unparse(key))
    return ".".join(names) or "module"


def _file(python_module: str) -> str:
    file = Path(sys.modules[python_module].__file__ or python_module)
    return file.relative_to(Path.cwd()).as_posix()
