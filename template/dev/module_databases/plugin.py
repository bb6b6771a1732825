# Rung's file: advancing to another stage may change it.
"""A pytest plugin: finds each transaction and statement that touches tables of two modules."""

import functools
import json
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import asyncpg
import greenlet  # type: ignore[import-untyped]  # it ships no types
import pytest
from _pytest.terminal import TerminalReporter
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction

from app.infra.module_databases.sessions import Held
from app.infra.reads import Query
from dev.module_databases import code
from dev.module_databases.borders import (
    Crossing,
    gone,
    listed_crossings,
    module_of,
    modules_in,
    new,
    owners,
    remember,
    without_duplicates,
)

PROPERTY = "crosses the border of a module"
JUDGED_HERE = (": transaction of ", ": statement of ")

ROOT = Path.cwd()


class Place(NamedTuple):
    file: str
    line: int
    name: str


class Transaction:
    """The modules whose tables this transaction has touched so far."""

    def __init__(self) -> None:
        self.touched: set[str] = set()
        self.places: list[Place] = []  # of the latest statement that the team's code sent


# By connection of the driver, because a Query in a transaction runs on it.
TRANSACTIONS: WeakKeyDictionary[Any, Transaction] = WeakKeyDictionary()


class Watch:
    """Watches each statement of this process, and the test that runs."""

    def __init__(self) -> None:
        self.item: pytest.Item | None = None
        self._owner_of: dict[str, str] = {}

    def begin(self) -> None:
        event.listen(Engine, "before_cursor_execute", self._in_transaction)
        event.listen(Engine, "commit", _end)
        event.listen(Engine, "rollback", _end)
        event.listen(Session, "after_begin", _go_elsewhere)
        event.listen(Session, "after_transaction_end", _come_back)
        for name in ("fetch", "executemany"):
            setattr(asyncpg.Connection, name, self._noting(getattr(asyncpg.Connection, name)))

    def _noting(self, run: Any) -> Any:
        @functools.wraps(run)
        async def note_and_run(
            driver: asyncpg.Connection, sql: str, *given: Any, **named: Any
        ) -> Any:
            alone = not driver.is_in_transaction()
            self._note(Transaction() if alone else _of_driver(driver), sql)
            return await run(driver, sql, *given, **named)

        return note_and_run

    def _in_transaction(self, connection: Connection, _: object, sql: str, *__: object) -> None:
        # Without a transaction, each statement commits alone.
        alone = getattr(connection.connection.dbapi_connection, "autocommit", False)
        self._note(Transaction() if alone else _transaction_of(connection), sql)

    def _note(self, transaction: Transaction, sql: str) -> None:
        if not self._owner_of:
            self._owner_of = owners()
        modules = modules_in(sql, self._owner_of)
        if not modules:
            return
        # The flush at COMMIT has no caller in the team's code: the statement before it counts.
        transaction.places = list(_places()) or transaction.places
        if len(modules) > 1 and not _is_declared(sql):
            self._cross("statement", modules, transaction.places)
        if transaction.touched and modules - transaction.touched:
            self._cross("transaction", transaction.touched | modules, transaction.places)
        transaction.touched |= modules

    def _cross(self, kind: str, modules: set[str], places: list[Place]) -> None:
        # For example, a migration is no code of the app or of the tests.
        if self.item is not None and places:
            place = places[0] if kind == "statement" else _border(places)
            found = (PROPERTY, json.dumps(Crossing.of(kind, *place, modules)))
            if found not in self.item.user_properties:
                self.item.user_properties.append(found)


def _transaction_of(connection: Connection) -> Transaction:
    return _of_driver(connection.connection.driver_connection)


def _of_driver(driver: Any) -> Transaction:
    if not isinstance(driver, asyncpg.Connection):
        return Transaction()  # of another kind of database
    return TRANSACTIONS.setdefault(driver, Transaction())


def _end(connection: Connection) -> None:
    if not connection.invalidated:  # a lost connection has no driver
        _transaction_of(connection).touched = set()


def _go_elsewhere(session: Session, begun: SessionTransaction, connection: Connection) -> None:
    """In one database elsewhere() is a savepoint of the same transaction, but a border as well."""
    held: Held | None = session.info.get(Held)
    if held and held.is_elsewhere and _is_savepoint(begun):
        transaction = _transaction_of(connection)
        session.info[PROPERTY] = transaction, transaction.touched
        transaction.touched = set()


def _come_back(session: Session, ended: SessionTransaction) -> None:
    if PROPERTY in session.info and _is_savepoint(ended):
        transaction, touched = session.info.pop(PROPERTY)
        transaction.touched = touched


def _is_savepoint(transaction: SessionTransaction) -> bool:
    """False for a savepoint inside of another one."""
    return transaction.nested and not (transaction.parent and transaction.parent.nested)


def _places() -> Iterator[Place]:
    """The team's functions that led to a statement, from the innermost outwards."""
    for frame in _frames():
        file = frame.f_code.co_filename.removeprefix(f"{ROOT}/")
        if "/starlette/" in file or "/alembic/" in file:
            return  # the frames behind it are the test that called the app or a migration
        if file.startswith(("app/", "tests/")) and not file.startswith("app/infra/"):
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            yield Place(file, frame.f_lineno, name)


def _frames() -> Iterator[FrameType]:
    """SQLAlchemy runs in a greenlet, so the caller's frames belong to the parent."""
    frame: FrameType | None = sys._getframe()
    current = greenlet.getcurrent()
    while frame is not None:
        yield frame
        frame = frame.f_back
        if frame is None and current.parent is not None:
            current = current.parent
            frame = current.gr_frame


def _border(places: list[Place]) -> Place:
    """Where one module calls another, or the innermost function."""
    inner = module_of(places[0].file)
    return next((place for place in places if module_of(place.file) != inner), places[0])


def _is_declared(sql: str) -> bool:
    """True for a Query of the app, which the lint finds."""
    return any(form.sql == sql for query in Query.declared for form in query.used())


watch = Watch()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Report(config), "module borders")
    watch.begin()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    watch.item = item
    try:
        return (yield)
    finally:
        watch.item = None


class Report:
    """Reports at the end of a run, in the process that prints."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._ran: set[str] = set()
        self._seen: dict[Crossing, set[str]] = {}
        self._problems: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._ran.add(report.nodeid)
            for name, value in report.user_properties:
                if name == PROPERTY:
                    crossing = Crossing.of(*json.loads(str(value)))
                    self._seen.setdefault(crossing, set()).add(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput") or self._config.option.collectonly:
            return
        is_whole = self._is_of_all_tests(session)
        remember(self._seen, self._ran, is_whole=is_whole)
        listed = listed_crossings()
        if listed is None:
            return
        crossings = without_duplicates(self._seen)
        self._problems = new(crossings, listed)
        if is_whole:
            self._problems += gone((*self._seen, *code.crossings()), listed, JUDGED_HERE)
        if self._problems and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: TerminalReporter) -> None:
        if self._problems:
            terminalreporter.section("these cross the border of a module")
            for problem in self._problems:
                terminalreporter.line(problem)

    def _is_of_all_tests(self, session: pytest.Session) -> bool:
        chosen = self._config.option
        chooses = chosen.keyword or chosen.markexpr or chosen.deselect or chosen.ignore
        chooses = chooses or getattr(chosen, "lf", False)
        has_all = self._config.args == self._config.getini("testpaths") and not chooses
        return has_all and session.exitstatus == pytest.ExitCode.OK
