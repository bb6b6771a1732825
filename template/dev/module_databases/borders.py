# Rung's file: advancing to another stage may change it.
"""The borders between modules: the owner of each table, the crossings, and the team's list."""

import importlib
import json
import pkgutil
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import Table

from app.infra.module_databases.__main__ import without_class
from app.infra.tables import Base

# The team's list of known crossings: each line is one that may stay for now.
KNOWN_CROSSINGS = Path("module-borders.txt")

# The crossings that the latest run of each test saw. Git ignores the folder.
SEEN = Path(".dev", "module-borders.json")

# Counts only for a module that a person names, or that has its own history.
COMMON_SESSION = "common session"

ADVICE = {
    "transaction": (
        "One transaction cannot span two databases. Write your own row first, in a state such as"
        " 'pending'. Then `async with elsewhere(write, other) as theirs:` lets the other module's"
        " service do its part with `theirs`, under that row's id, so that doing it again changes"
        " nothing. Then store its answer, also a refusal."
    ),
    "statement": (
        "No JOIN spans two databases. Read the first module's rows, then the other's by their ids,"
        " with a Query of the other module: `.where(Person.id.in_(bindparam('ids')))`."
    ),
    "foreign key": (
        "No foreign key spans two databases. Keep the column, drop the key in a migration, and ask"
        " the other module's queries whether the row exists."
    ),
    "relationship": (
        "A relationship is a JOIN or a second SELECT in the same session. Keep the id, and ask the"
        " other module's queries for the rows."
    ),
    COMMON_SESSION: (
        "After the move ReadSession, WriteSession, of_user and app.state.database still lead to the"
        " old tables. Write what module_sessions(…) of the module gives: `.read` and `.write` in a"
        " route, `.transaction(app)` in a task or for a message of a WebSocket, and"
        " `.database(app).reader()`: docs/guide/module_databases/second-database.md."
    ),
}

_PART = r'(?:"[^"]+"|\w+)'
_PARTS = re.compile(_PART)
_NAME = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TOKEN = re.compile(rf"DISTINCT\s+FROM|DELETE\s+FROM|{_NAME}|\S", re.IGNORECASE)
# A table comes next: one, or the first of several.
_ONE = {"JOIN", "INTO", "UPDATE", "TABLE"}
_SEVERAL = {"FROM", "USING", "DELETE FROM"}
_FIRST = {"COPY", "LOCK", "TRUNCATE"}  # also several, but only as the first word
_CHANGES = {"INTO", "UPDATE", "DELETE FROM", *_FIRST}
_BEFORE_A_TABLE = {"ONLY", "LATERAL", "ROWS", "TABLE"}
_AFTER_ALL = {
    *("SELECT", "VALUES", "WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "OFFSET"),
    *("FETCH", "FOR", "UNION", "INTERSECT", "EXCEPT", "RETURNING", "SET", "WHEN", ";"),
}
_WITH = re.compile(
    rf"(?:\bWITH\s+(RECURSIVE\s+)?|,\s*)({_NAME})\s*(?:\([^()]*\)\s*)?"
    r"AS\s+(?:(?:NOT\s+)?MATERIALIZED\s+)?\(",
    re.IGNORECASE,
)
_NO_SQL = re.compile(
    r"""("[^"]*")|\b[eE]'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'|\$(\w*)\$.*?\$\2\$"""
    r"|--[^\n]*|/\*.*?\*/",
    re.DOTALL,
)


class Crossing(NamedTuple):
    kind: str  # a key of ADVICE
    file: str
    line: int
    name: str  # of the function, the variable or the column
    modules: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, file: str, line: int, name: str, modules: Iterable[str]) -> "Crossing":
        return cls(kind, file, line, name, tuple(sorted(modules)))

    @property
    def entry(self) -> str:
        """Its line in the team's list, without a line number, because that changes every day."""
        return f"{self.file} {self._what}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self._what}"

    @property
    def _what(self) -> str:
        return f"{self.name}: {self.kind} of {' + '.join(self.modules)}"


def import_app() -> None:
    """Tables and queries are known once their module is imported."""
    package = importlib.import_module("app")
    for module in pkgutil.walk_packages(package.__path__, "app."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def module_of(name: str) -> str | None:
    """The folder of app/ by a Python module's name or by a file's: None for infrastructure."""
    parts = name.removesuffix(".py").replace("/", ".").split(".")
    return parts[1] if parts[0] == "app" and len(parts) > 1 and parts[1] != "infra" else None


def owners() -> dict[str, str]:
    """The module of each table, by its name, with its schema. Tables of app/infra have none."""
    found: dict[str, str] = {}
    for mapper in Base.registry.mappers:
        if isinstance(mapper.local_table, Table) and (owner := module_of(mapper.class_.__module__)):
            found[mapper.local_table.fullname] = owner
    for table, owner in without_class().items():
        found.setdefault(table.fullname, owner)
    return found


@lru_cache(1000)  # the tests send the same statements again and again
def tables_in(sql: str) -> frozenset[str]:
    """Every name in a place where SQL expects a table, unless a WITH gives it another meaning. What
    a statement changes is always a table."""
    text = _NO_SQL.sub(r"\1 ", sql)
    hidden_from = _names_of_with(text)
    return frozenset(
        name
        for name, place, is_changed in _sources(text)
        if is_changed or place < hidden_from.get(name, len(text))
    )


def _sources(text: str) -> Iterator[tuple[str, int, bool]]:
    """Each name, its place, and whether the statement changes that table. A function or a column
    may be among them: only names of tables count."""
    lists = [False]  # for each open parenthesis: whether a table follows a comma
    before, is_next, is_changed = ";", False, False
    for found in _TOKEN.finditer(text):
        word = " ".join(found[0].upper().split())
        if word == "(":
            is_next &= before != "USING"
            lists.append(is_next)
        elif word == ")":
            lists[1:] = lists[1:-1]
        elif word == ",":
            is_next = lists[-1]
        elif is_next and word in _BEFORE_A_TABLE:
            continue
        elif word in _ONE | _SEVERAL or (word in _FIRST and before == ";"):
            is_next, is_changed = True, word in _CHANGES
            lists[-1] = word not in _ONE or (lists[-1] and word == "JOIN")
        elif word in _AFTER_ALL or (word == "WITH" and is_next):
            is_next = lists[-1] = False
        elif is_next:
            yield _folded(found[0]), found.start(), is_changed
            is_next = False
        before = word


def _names_of_with(text: str) -> dict[str, int]:
    """Each name with the place from which on it hides a table: after its query, which may read that
    table. A recursive one reads itself."""
    places: dict[str, int] = {}
    is_recursive = False
    for found in _WITH.finditer(text):
        is_recursive = is_recursive or found[1] is not None
        end, depth = found.end(), 1
        while depth and end < len(text) and not is_recursive:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        places.setdefault(_folded(found[2]), end)
    return places


def _folded(name: str) -> str:
    """As Postgres knows it: in lower case, except in quotes."""
    return ".".join(
        part.strip('"') if '"' in part else part.lower() for part in _PARTS.findall(name)
    )


def modules_in(sql: str, owner_of: Mapping[str, str]) -> set[str]:
    found: set[str] = set()
    for name in tables_in(sql):
        if name in owner_of:
            found.add(owner_of[name])
        else:
            found.update(owner for table, owner in owner_of.items() if _may_be(name, table))
    return found


def _may_be(name: str, table: str) -> bool:
    """SQL may leave the schema to the search_path, or name one that the model leaves out."""
    return table.endswith(f".{name}") or name.endswith(f".{table}")


def listed_crossings() -> list[str] | None:
    """None if the team has no list yet."""
    if not KNOWN_CROSSINGS.exists():
        return None
    lines = (line.strip() for line in KNOWN_CROSSINGS.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def new(crossings: Iterable[Crossing], listed: Collection[str]) -> list[str]:
    """Names each crossing that is not listed, and the command that says what to write instead."""
    problems = [str(one) for one in crossings if one.entry not in listed]
    advice = "These cross the border of a module. What to write instead: make module-borders"
    return [*problems, advice] if problems else []


def gone(crossings: Iterable[Crossing], listed: Iterable[str], kinds: Sequence[str]) -> list[str]:
    """Names each entry of these kinds that is listed, and is no crossing any more."""
    found = {one.entry for one in crossings}
    return [
        f"{KNOWN_CROSSINGS}: gone, so delete this line: {entry}"
        for entry in listed
        if entry not in found and any(kind in entry for kind in kinds)
    ]


def seen_in_tests() -> dict[Crossing, set[str]] | None:
    """Each crossing with the tests that saw it. None before the first run."""
    if not SEEN.exists():
        return None
    try:
        entries = json.loads(SEEN.read_text(encoding="utf-8"))
        return {Crossing.of(*fields): set(tests) for fields, tests in entries}
    except ValueError:  # its writer was killed
        return None


def remember(seen: Mapping[Crossing, set[str]], ran: set[str], *, is_whole: bool) -> None:
    """Keeps the results of the other tests, because a run may include only some."""
    entries = {crossing: sorted(tests) for crossing, tests in seen.items()}
    if not is_whole:
        for crossing, tests in (seen_in_tests() or {}).items():
            if others := tests - ran:
                entries[crossing] = sorted({*entries.get(crossing, ()), *others})
    SEEN.parent.mkdir(exist_ok=True)
    SEEN.write_text(json.dumps(list(entries.items())), encoding="utf-8")


def without_duplicates(*several: Iterable[Crossing]) -> list[Crossing]:
    """Sorted by file and line, with only the first crossing of each entry of the list."""
    found = {one.entry: one for crossings in reversed(several) for one in [*crossings][::-1]}
    return sorted(found.values(), key=lambda one: (one.file, one.line))
