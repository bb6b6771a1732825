# Rung's file: advancing to another stage may change it.
"""Each `python -m app.…` ends in words: interrupted, without a reader, or without its server."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import ends_in_words
from dev.postgres import REPOSITORY
from tests.infra.conftest import run_python

WAITS = "import app.infra\nimport time\nprint('imported', flush=True)\ntime.sleep(300)\n"
SHORT, LONG = "import app.infra\nprint('x')\n", "import app.infra\nprint('x' * 100_000)\n"
MISTAKEN = "import app.infra\nprint('x')\n1 / 0\n"
LOST = """from socket import socketpair
from app.infra.failures import ends_in_words
here, there = socketpair()
there.close()
with ends_in_words():
    here.sendall(b"x")
"""
FOREIGN = "import app.infra\nprint('Größe…')\n"


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of `python -m app.command`, a command of the team."""
    app = tmp_path / "app"
    app.mkdir()
    (app / "__init__.py").write_text("")
    (app / "infra").symlink_to(REPOSITORY / "app/infra")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return app / "command.py"


def started(stdout: int, module: str = "app.command") -> subprocess.Popen[str]:
    python = [sys.executable, "-m", module]
    return subprocess.Popen(python, stdout=stdout, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("module", ["app.command", "dev.alembic"])
def test_an_interrupt_while_a_command_is_imported_leaves_no_traceback(
    command: Path, tmp_path: Path, module: str
) -> None:
    command.write_text(WAITS)
    (tmp_path / "dev").symlink_to(REPOSITORY / "dev")
    (tmp_path / "alembic").mkdir()
    (tmp_path / "alembic/__init__.py").touch()
    (tmp_path / "alembic/config.py").write_text(WAITS)
    waiting = started(subprocess.PIPE, module)
    assert waiting.stdout
    assert waiting.stdout.readline() == "imported\n"

    waiting.send_signal(signal.SIGINT)

    assert waiting.communicate(timeout=300) == ("", "")
    assert waiting.returncode == -signal.SIGINT  # which ends a shell's loop too


@pytest.mark.parametrize("said", [SHORT, LONG])
def test_a_reader_that_has_gone_is_no_error(command: Path, said: str) -> None:
    command.write_text(said)
    reading, writing = os.pipe()
    os.close(reading)

    speaking = started(writing)
    os.close(writing)

    assert speaking.communicate(timeout=300)[1] == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")
@pytest.mark.parametrize("said", [SHORT, LONG])
def test_an_output_that_is_full_is_named_in_one_line(command: Path, said: str) -> None:
    command.write_text(said)
    with Path("/dev/full").open("w") as full:
        speaking = started(full.fileno())

    [line] = speaking.communicate(timeout=300)[1].splitlines()

    assert speaking.returncode == 1
    assert "No space left on device." in line


def test_a_closed_output_is_no_error(command: Path) -> None:
    command.write_text(SHORT)

    closed = ["/bin/sh", "-c", '"$0" -m app.command >&-', sys.executable]
    done = subprocess.run(closed, capture_output=True)

    assert (done.returncode, done.stderr) == (0, b"")


def test_a_mistake_keeps_its_traceback(command: Path) -> None:
    command.write_text(MISTAKEN)

    done = run_python("-m", "app.command", cwd=command.parents[1])

    assert (done.returncode, done.stdout) == (1, "x\n")
    assert done.stderr.endswith("ZeroDivisionError: division by zero\n")


def test_a_broken_pipe_to_a_server_is_not_taken_for_the_output(command: Path) -> None:
    command.write_text(LOST)

    done = run_python("-m", "app.command", cwd=command.parents[1])

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("BrokenPipeError: [Errno 32] Broken pipe\n")


def test_a_terminal_that_is_not_utf_8_ends_no_command(
    command: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command.write_text(FOREIGN, encoding="utf-8")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")

    done = run_python("-m", "app.command", cwd=command.parents[1])

    assert (done.stdout, done.stderr) == ("Gr??e?\n", "")


async def test_a_database_without_the_tables_is_told_what_to_do(empty_database: str) -> None:
    database = Database(environment.read(DatabaseSettings))
    async with database:
        with pytest.raises(SystemExit, match="run its migrations: alembic upgrade head"):
            await select_in_words(database, "SELECT FROM missing")


async def test_a_mistake_in_a_statement_keeps_its_traceback(empty_database: str) -> None:
    database = Database(environment.read(DatabaseSettings))
    async with database:
        with pytest.raises(DBAPIError, match="division by zero"):
            await select_in_words(database, "SELECT 1 / 0")


async def test_what_postgres_refuses_a_command_of_infra_is_told_in_words() -> None:
    with pytest.raises(SystemExit, match=r"^Postgres: no right\nNothing is lost"), ends_in_words():
        raise asyncpg.InsufficientPrivilegeError("no right")


async def select_in_words(database: Database, sql: str) -> None:
    with ends_in_words():
        async with database.transaction() as write:
            await write.execute(text(sql))
