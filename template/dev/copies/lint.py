# Rung's file: advancing to another stage may change it.
"""Refuses state in app/ that one process keeps from one request to the next.

The next request of the same person may reach another copy, which does not have that state, and the
first copy may be gone. If the state is the same in every copy, or may be lost with a copy, end its
line with `# per copy: ` and the reason.
"""

import ast
import re
from collections.abc import Iterator, Sequence

from dev.pooling.findings import Finding, functions_in, name_of, report, root_of

EXCUSED = re.compile(r"# per copy: \S")

CONTAINERS = {
    *("dict", "list", "set", "bytearray", "defaultdict", "OrderedDict", "Counter", "deque"),
    *("WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "TTLCache", "LRUCache"),
}
DISPLAYS = (ast.Dict, ast.List, ast.Set, ast.DictComp, ast.ListComp, ast.SetComp)
CHANGES = {
    *("add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem"),
    *("popleft", "remove", "setdefault", "subtract", "update"),
}
COUNTERS = {"count", "Queue", "LifoQueue", "PriorityQueue", "SimpleQueue"}
LOCKS = {"Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition", "Barrier"}
CACHES = {"lru_cache", "cache", "alru_cache", "cached"}

KEPT = "keep it in Redis or a table, for all copies"
LOCKED = "it holds back this copy only: use pg_advisory_xact_lock, or SELECT … FOR UPDATE"
CACHED = "each copy would keep its own answers forever: use @max_stale, shared and with an expiry"


def find(source: str) -> list[Finding]:
    tree = ast.parse(source)
    lines = source.splitlines()
    checks = (_made_by_the_module, _changed, _closed_over, _cached, _middleware)
    findings = {finding for check in checks for finding in check(tree)}
    return sorted(found for found in findings if not EXCUSED.search(lines[found.line - 1]))


def _made_by_the_module(tree: ast.Module) -> Iterator[Finding]:
    """Locks, queues, and objects whose methods change them."""
    changing = {defined.name for defined in _classes(tree) if any(_changes_itself(defined))}
    for name, value in _assigned([tree, *_classes(tree)]):
        if not isinstance(value, ast.Call):
            continue
        made = name_of(value.func)
        if made in LOCKS:
            yield Finding(value.lineno, f"{name}: {LOCKED}")
        elif made in changing or (
            made in COUNTERS and root_of(value.func) != "func"  # func.count(…) is SQL
        ):
            yield Finding(value.lineno, f"{name} changes from request to request: {KEPT}")


def _changed(tree: ast.Module) -> Iterator[Finding]:
    """Changes that a function makes: to a container of any module, or to the app's attributes."""
    kept = {name for name, value in _assigned([tree]) if _is_container(value)}
    imported = set(_imported(tree))
    for function in functions_in(tree):
        own = set(_own_names(function))
        for node in ast.walk(function):
            if isinstance(node, ast.Global):
                yield Finding(node.lineno, f"{', '.join(node.names)}: {KEPT}")
        for line, target in _changes(function):
            root = root_of(target)
            is_of_the_app = ".app.state." in ast.unparse(target)
            is_of_another_module = root in imported and name_of(target).isupper()
            if is_of_the_app or (root not in own and (is_of_another_module or root in kept)):
                yield Finding(line, f"{ast.unparse(target)}: {KEPT}")


def _closed_over(tree: ast.Module) -> Iterator[Finding]:
    """Changes by the function that a decorator returns. The decorator itself runs only once."""
    for decorator in functions_in(tree):
        if isinstance(decorator, ast.FunctionDef):
            kept = {name for name, value in _assigned([decorator]) if _is_container(value)}
            for function in functions_in(decorator):
                if isinstance(function, ast.AsyncFunctionDef):
                    own = set(_own_names(function))
                    for line, target in _changes(function):
                        if root_of(target) in kept - own:
                            yield Finding(line, f"{ast.unparse(target)}: {KEPT}")


def _cached(tree: ast.Module) -> Iterator[Finding]:
    """A cached function without parameters, such as one that reads settings, is a constant."""
    for function in functions_in(tree):
        for decorator in function.decorator_list:
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            if name_of(called) in CACHES and ast.unparse(function.args):
                yield Finding(decorator.lineno, f"{function.name}: {CACHED}")


def _middleware(tree: ast.Module) -> Iterator[Finding]:
    for defined in _classes(tree):
        calls = (method for method in functions_in(defined) if method.name == "__call__")
        if any("scope" in ast.unparse(call.args) for call in calls):
            for line, target in _changes_itself(defined):
                yield Finding(line, f"{ast.unparse(target)}: {KEPT}")


def _changes_itself(defined: ast.ClassDef) -> Iterator[tuple[int, ast.expr]]:
    """The places where methods change an object after it was made, with the object's name."""
    for method in functions_in(defined):
        if method.name not in {"__init__", "__post_init__"}:
            yield from (change for change in _changes(method) if root_of(change[1]) == "self")


def _changes(tree: ast.AST) -> Iterator[tuple[int, ast.expr]]:
    """Each place with its object: `seen` in seen[a] = 1, in seen.add(a) and in del seen[a]."""
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=targets) | ast.Delete(targets=targets):
                changed: list[ast.expr] = [*targets]
            case ast.AugAssign(target=single) | ast.AnnAssign(target=single):
                changed = [single]
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in CHANGES:
                yield node.lineno, value
                continue
            case _:
                continue
        for target in changed:
            if isinstance(target, ast.Subscript):
                yield node.lineno, target.value
            elif isinstance(target, ast.Attribute):
                yield node.lineno, target


def _assigned(
    bodies: Sequence[ast.Module | ast.ClassDef | ast.FunctionDef],
) -> Iterator[tuple[str, ast.expr]]:
    for statement in (statement for of in bodies for statement in of.body):
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                yield name, value
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                yield name, value


def _is_container(value: ast.expr) -> bool:
    is_made = isinstance(value, ast.Call) and name_of(value.func) in CONTAINERS
    return is_made or isinstance(value, DISPLAYS)


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from (alias.asname or alias.name for alias in node.names)


def _own_names(function: ast.AST) -> Iterator[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _classes(tree: ast.Module) -> Iterator[ast.ClassDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))


if __name__ == "__main__":
    report(find, ending="Another copy of the app may answer the next request.")
