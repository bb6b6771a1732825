# Rung's file: advancing to another stage may change it.
"""Fixtures that give a test services of its own. Nothing is started before a test asks for them."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from dev import postgres

# pytest-xdist's workers find each other by this, and share one server.
RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", uuid4().hex)


@dataclass(frozen=True)
class Services:
    database_url: str
    files_folder: Path


@pytest.fixture
def services(
    migrated_template: str, databases: "Databases", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Services]:
    """A migrated database and a folder for files, both empty, and the app's environment set."""
    with databases.created(f'TEMPLATE "{migrated_template}" STRATEGY FILE_COPY') as url:
        files_folder = tmp_path / "files"
        files_folder.mkdir()
        monkeypatch.setenv("DATABASE_URL", url)
        monkeypatch.setenv("FILES_FOLDER", str(files_folder))
        monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
        yield Services(url, files_folder)


@pytest.fixture
def empty_database(databases: "Databases", monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of a database without a table, set as DATABASE_URL: for tests of the migrations."""
    with databases.created() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        yield url


@pytest.fixture(scope="session")
def databases() -> Iterator["Databases"]:
    """On the server of TEST_DATABASE_URL, where only new ones are touched, or of this run."""
    given = os.environ.get("TEST_DATABASE_URL")
    throwaway = postgres.throwaway(f"rung-test-{RUN}")
    with nullcontext(given) if given else throwaway as server, Databases(server) as found:
        yield found


@pytest.fixture(scope="session")
def migrated_template(databases: "Databases") -> Iterator[str]:
    """Name of the database that every test's own is a copy of."""
    with databases.created() as url:
        migration = subprocess.run(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=postgres.REPOSITORY,
            env={**os.environ, "DATABASE_URL": url},
            capture_output=True,
            text=True,
        )
        if migration.returncode != 0:
            pytest.exit(f"`alembic upgrade head` failed:\n{migration.stderr}", returncode=1)
        yield urlsplit(url).path.removeprefix("/")


class Databases:
    """Makes databases on a server and drops them."""

    def __init__(self, server: str) -> None:
        self._server = urlsplit(server)
        self._loop = asyncio.Runner(loop_factory=asyncio.new_event_loop)

    def __enter__(self) -> "Databases":
        self._loop.__enter__()
        self._connection = self._loop.run(asyncpg.connect(self._server.geturl()))
        return self

    def __exit__(self, *failure: object) -> None:
        self._loop.run(self._connection.close())
        self._loop.close()

    @contextmanager
    def created(self, options: str = "") -> Iterator[str]:
        name = f"rung_test_{uuid4().hex}"
        self._run(f'CREATE DATABASE "{name}" {options}')
        try:
            yield self._server._replace(path=f"/{name}").geturl()
        finally:
            self._run(f'DROP DATABASE "{name}" WITH (FORCE)')

    def _run(self, statement: str) -> None:
        self._loop.run(self._connection.execute(statement))
