# Rung's file: advancing to another stage may change it.
"""Each database has its own history of migrations, and the module's holds its own tables only."""

import asyncio
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dev.postgres import REPOSITORY
from dev.pytest_plugin import Databases
from tests.infra.module_databases.conftest import Practice

pytestmark = pytest.mark.slow

PROJECT = """\
[tool.alembic]
script_location = "%(here)s/migrations"
prepend_sys_path = ["%(here)s"]
"""
MAIN = "import app.pets.models\nimport app.vets.models\n"
MODULE = "app.infra.module_databases"


@pytest.fixture
def own(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with databases.created() as url:
        monkeypatch.setenv("MODULE_VETS_DATABASE_URL", url)
        yield url


@pytest.fixture
def migrated(practice: Practice, tmp_path: Path) -> Practice:
    practice.write("pyproject.toml", PROJECT)
    practice.write("app/main.py", MAIN)
    (tmp_path / "migrations/versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        shutil.copy(REPOSITORY / "migrations" / name, tmp_path / "migrations")
    return practice


def tables(url: str) -> set[str]:
    async def names() -> set[str]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        await connection.close()
        return {row["tablename"] for row in rows}

    return asyncio.run(names())


def test_a_module_has_a_history_for_its_own_database(
    migrated: Practice, empty_database: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only the common database stands behind a pooler.
    monkeypatch.setenv("DATABASE_POOLED", "true")
    monkeypatch.setenv("DATABASE_READ_URL", f"{empty_database}?application_name=read")
    monkeypatch.setenv("DATABASE_DIRECT_URL", f"{empty_database}?application_name=direct")
    status, said = migrated.runs(MODULE, "vets", "upgrade", "head")
    assert (status, said.count("\n")) == (1, 1), said
    assert "migrations/vets does not exist: the tables of vets have no migration there" in said

    status, said = migrated.runs(MODULE, "vets", "revision", "--autogenerate", "-m", "the vets")
    assert status == 0, said
    status, said = migrated.runs(MODULE, "vets", "upgrade", "head")
    assert (status, said.endswith(": the vets\n")) == (0, True), said
    status, said = migrated.runs(MODULE, "vets", "check")
    assert status == 0, said

    assert tables(own) == {"vets", "alembic_version"}
    assert tables(empty_database) == set()
    status, said = migrated.runs("alembic", "history")
    assert (status, said) == (0, "")


def test_the_command_says_what_is_wrong(migrated: Practice) -> None:
    assert migrated.runs(MODULE, "vats", "current")[1] == (
        "No table belongs to the module 'vats': app/vats/ has no models.\n"
    )
    assert migrated.runs(MODULE)[1].startswith(f"Use: python -m {MODULE} MODULE COMMAND")
    status, said = migrated.runs(MODULE, "vets", "current")
    assert (status, "  MODULE_VETS_DATABASE_URL: Field required" in said) == (1, True), said
