"""On an empty Postgres, the migrations create exactly the tables of the models."""

import asyncio
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError

from app.infra.tables import Base
from dev import model_differences

ROOT = Path(__file__).parent.parent
UPGRADE = (sys.executable, "-m", "alembic", "upgrade", "head")


@pytest.fixture
def alembic(empty_database: str) -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")


def test_the_migrations_create_the_tables_of_the_models(
    alembic: Config, empty_database: str
) -> None:
    command.upgrade(alembic, "head")

    command.check(alembic)
    found = asyncio.run(model_differences.found(empty_database, Base.metadata))
    assert not found, "\n".join(found)


def test_every_migration_can_be_reverted(alembic: Config) -> None:
    command.upgrade(alembic, "head")
    command.downgrade(alembic, "base")
    command.upgrade(alembic, "head")

    command.check(alembic)


def test_the_history_has_one_head(alembic: Config) -> None:
    assert len(ScriptDirectory.from_config(alembic).get_heads()) == 1


async def test_an_index_whose_build_was_ended_is_named(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute("CREATE TABLE twins AS SELECT 1 AS id FROM generate_series(1, 2)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await connection.execute("CREATE UNIQUE INDEX CONCURRENTLY ix_twins_id ON twins (id)")

    first, again = upgraded(), upgraded()
    await connection.execute("DELETE FROM twins")
    await connection.execute("REINDEX INDEX CONCURRENTLY ix_twins_id")
    await connection.close()

    for refused in (first, again):
        assert refused.returncode == 1
        assert "REINDEX INDEX CONCURRENTLY ix_twins_id;" in refused.stderr
    assert upgraded().returncode == 0


async def test_an_index_that_is_being_built_is_not_named(empty_database: str) -> None:
    # A statement of `writing` would keep its snapshot, and a concurrent index waits for that.
    building, writing, looking = [await asyncpg.connect(empty_database) for _ in range(3)]
    await writing.execute("CREATE TABLE twins AS SELECT 1 AS id; CREATE INDEX ix ON twins (id)")
    await writing.execute("BEGIN; INSERT INTO twins VALUES (2)")
    built = asyncio.create_task(building.execute("REINDEX INDEX CONCURRENTLY ix"))
    async with asyncio.timeout(300):
        while not await looking.fetchval(  # noqa: ASYNC110  # Postgres sets no event
            "SELECT 1 FROM pg_class WHERE relname = 'ix_ccnew'"
        ):
            await asyncio.sleep(0.01)

    meanwhile = upgraded()
    await writing.close()
    await built
    await building.close()
    await looking.close()

    assert meanwhile.returncode == 0, meanwhile.stderr


def test_two_heads_and_an_older_code_are_told_what_to_do(alembic: Config, tmp_path: Path) -> None:
    copied = shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    alembic.set_main_option("script_location", str(copied))
    command.revision(alembic, "other", head="base", splice=True)
    with pytest.raises(CommandError, match="alembic merge heads"):
        command.upgrade(alembic, "head")

    command.upgrade(alembic, "heads")
    next(copied.glob("versions/*_other.py")).unlink()
    with pytest.raises(CommandError, match="alembic downgrade -1"):
        command.upgrade(alembic, "head")
    with pytest.raises(CommandError) as typed:
        command.upgrade(alembic, "typo")
    assert "downgrade" not in str(typed.value)


@pytest.mark.parametrize(("right", "wrong"), [("//app:", "//nobody:"), ("/rung_test_", "/no_")])
def test_a_database_that_lets_nobody_in_is_named_in_one_line(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, right: str, wrong: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", empty_database.replace(right, wrong))

    stopped = upgraded()

    assert stopped.returncode == 1
    [line] = stopped.stderr.splitlines()
    assert line.startswith("Cannot connect to the Postgres of DATABASE_URL")


@pytest.mark.parametrize(
    ("setting", "reason", "advice"),
    [
        ("role=pg_monitor", "permission denied for schema public", "ALTER DATABASE"),
        (
            "options=-c%20default_transaction_read_only%3Don",
            "cannot execute CREATE TABLE in a read-only transaction",
            "disk is full",
        ),
        ("search_path=nowhere", "no schema has been selected to create in", "CREATE SCHEMA"),
    ],
)
def test_a_role_that_may_create_no_tables_is_told_what_it_needs(
    empty_database: str, monkeypatch: pytest.MonkeyPatch, setting: str, reason: str, advice: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{empty_database}?{setting}")

    stopped = upgraded()

    assert stopped.returncode == 1
    refused, told = stopped.stderr.splitlines()
    assert refused == f"Postgres: {reason}"
    assert advice in told


def test_an_error_of_a_migration_is_not_blamed_on_the_connection(
    alembic: Config, tmp_path: Path
) -> None:
    copied = shutil.copytree(ROOT / "migrations", tmp_path / "migrations")
    alembic.set_main_option("script_location", str(copied))
    command.revision(alembic, "broken")
    [written] = copied.glob("versions/*_broken.py")
    text = written.read_text(encoding="utf-8")
    written.write_text(text.replace("    pass", "    int('many')", 1), encoding="utf-8")

    with pytest.raises(ValueError, match="many"):
        command.upgrade(alembic, "head")


def upgraded() -> subprocess.CompletedProcess[str]:
    return subprocess.run(UPGRADE, cwd=ROOT, capture_output=True, text=True)


async def test_a_migration_that_waits_for_another_one_says_how_to_end_that(
    empty_database: str,
) -> None:
    other = await asyncpg.connect(empty_database)
    await other.execute("SELECT pg_advisory_lock(7311966)")
    end = f"SELECT pg_terminate_backend({other.get_server_pid()})"
    waiting = await asyncio.create_subprocess_exec(*UPGRADE, cwd=ROOT, stderr=subprocess.PIPE)
    async with asyncio.timeout(300):
        assert waiting.stderr
        line = await waiting.stderr.readline()
        await other.close()
        assert await waiting.wait() == 0

    assert end in line.decode()


async def test_a_migration_that_waits_for_another_one_can_be_interrupted(
    empty_database: str,
) -> None:
    other = await asyncpg.connect(empty_database)
    await other.execute("SELECT pg_advisory_lock(7311966)")
    waiting = await asyncio.create_subprocess_exec(*UPGRADE, cwd=ROOT, stderr=subprocess.PIPE)
    async with asyncio.timeout(300):
        assert waiting.stderr
        await waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        rest = await waiting.stderr.read()
    await other.close()

    assert await waiting.wait() == 130
    assert rest == b""


@pytest.mark.slow
async def test_a_migration_that_gets_no_lock_names_the_page_that_shows_who_holds_it(
    empty_database: str,
) -> None:
    upgraded()
    other = await asyncpg.connect(empty_database)
    await other.execute("BEGIN; LOCK TABLE alembic_version")
    refused = upgraded()
    await other.close()

    assert refused.returncode == 1
    assert "Traceback" not in refused.stderr
    assert "docs/guide/unavailable.md shows who holds the lock" in refused.stderr
