# Rung's file: advancing to another stage may change it.
"""`make dev` and the tests: a module with migrations for its own database has one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import asyncpg
import pytest
from fastapi import FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.infra.module_databases import settings
from app.infra.module_databases.__main__ import tables_of
from app.infra.session_rows import LoginSession
from dev import data, postgres, services
from dev.module_databases import fixtures, lint_histories, migration, own, psql
from dev.pytest_plugin import Databases, Services
from tests.infra.module_databases.test_migrations import ODD_NAME, tables
from tests.infra.test_start_page import developer

MIGRATION = """
from alembic import op
import sqlalchemy as sa

revision = "a1"
down_revision = None

def upgrade():
    op.create_table("parcels", sa.Column("id", sa.BigInteger, primary_key=True))
"""
VARIABLE = "MODULE_PARCELS_DATABASE_URL"


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module with migrations for its own database, below a folder with an odd name."""
    repository = tmp_path / ODD_NAME
    for folder in ("app/parcels", "app/letters", "migrations/parcels", "migrations/versions"):
        (repository / folder).mkdir(parents=True)
    for folder in ("parcels", "versions"):
        (repository / "migrations" / folder / "a1.py").write_text(MIGRATION)
    monkeypatch.setattr(own, "APP", repository / "app")
    monkeypatch.setattr(own, "MIGRATIONS", repository / "migrations")
    return repository / "migrations/parcels"


def test_a_history_gives_a_module_its_own_database(history: Path) -> None:
    assert own.with_history() == ["parcels"]
    assert own.variable("parcels") == settings.prefix_of("parcels") + "URL" == VARIABLE
    (history / "a1.py").unlink()
    assert own.with_history() == []


def test_the_tests_migrate_a_modules_own_database(history: Path, databases: Databases) -> None:
    with fixtures.migrated(databases, history.name) as url:
        assert tables(url) == {"parcels", "alembic_version"}


def test_make_check_reads_the_migrations_of_a_module_too(
    history: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(postgres.REPOSITORY)
    (history / "a1.py").write_text(MIGRATION.replace("True", "True, autoincrement=False"))
    lint_histories.main()

    unsafe = "def upgrade():\n    op.drop_table('parcels')\n"
    (history / "a1.py").write_text(MIGRATION.partition("def upgrade")[0] + unsafe)
    with pytest.raises(SystemExit):
        lint_histories.main()
    assert "a1.sql" in capfd.readouterr().out


@pytest.mark.slow
def test_make_dev_creates_a_modules_database_beside_the_common_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = postgres.for_load()
    with server as common, own.beside("parcels", {"DATABASE_URL": common}) as found:
        environment = {"DATABASE_URL": common, **found}
        assert found == {VARIABLE: f"{common}_parcels"}
        assert tables(found[VARIABLE]) == set()
        with own.beside("parcels", {"DATABASE_URL": common}) as again:
            assert again == found
        assert list(services.databases(environment)) == [common, f"{common}_parcels"]
        assert services.databases(environment)[f"{common}_parcels"][1:] == ["parcels"]


def test_beside_another_server_a_module_uses_the_common_database() -> None:
    elsewhere = {"DATABASE_URL": "postgresql://app@db.example/app"}
    with own.beside("parcels", elsewhere) as found:
        assert found == {}
    assert list(services.databases(elsewhere)) == [elsewhere["DATABASE_URL"]]


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        (migration, ["", ""], "Name the module and the change: make module-migration"),
        (migration, ["letters", ""], "Name the module and the change: make module-migration"),
        (migration, ["../app", "one"], "There is no module app/../app."),
        (migration, ["letters", "one"], "Set MODULE_LETTERS_DATABASE_URL: DATABASE_URL leads to"),
        (psql, ["letters"], "'letters' has no own database. Modules that have one: parcels."),
    ],
)
def test_a_wrong_name_is_refused_in_one_line(
    command: ModuleType,
    arguments: list[str],
    said: str,
    history: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@db.example/app")
    monkeypatch.setenv(VARIABLE, "postgresql://app@db.example/parcels")
    monkeypatch.setattr("sys.argv", ["make", *arguments])
    with pytest.raises(SystemExit) as refused:
        command.main()
    assert str(refused.value).startswith(said)
    assert "\n" not in str(refused.value)
    assert [one.name for one in history.iterdir()] == ["a1.py"]


def test_a_name_for_the_table_of_a_class_elsewhere_gives_a_module_no_table(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    models = ModuleType("app.parcels.models")
    monkeypatch.setattr(models, "SESSIONS", LoginSession.__table__, raising=False)
    monkeypatch.setitem(sys.modules, models.__name__, models)

    assert tables_of("parcels") == set()


@pytest.fixture
def two(
    services: Services, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """URLs of the common database and of the one of the module parcels."""
    with databases.created() as common, databases.created() as own_one:
        monkeypatch.setenv("DATABASE_URL", common)
        monkeypatch.setenv(VARIABLE, own_one)
        yield common, own_one


async def test_the_pages_of_the_data_show_the_rows_of_a_modules_own_database(
    two: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Table(DeclarativeBase):
        id: Mapped[int] = mapped_column(primary_key=True)

    # In a list, because SQLAlchemy itself does not keep a class.
    models = [
        type(name, (Table,), {"__module__": f"app.{name}.models", "__tablename__": name})
        for name in ("letters", "parcels")
    ]
    monkeypatch.setattr(data, "Base", Table)
    for url, model in zip(two, models, strict=True):
        connection = await asyncpg.connect(url)
        await connection.execute(f"CREATE TABLE {model.__name__} AS SELECT 4711 AS id")
        await connection.close()

    async with developer(FastAPI()) as client:
        pages = [await client.get(f"{data.PLACE}/{model.__name__}/list") for model in models]

    assert [(page.status_code, "4711" in page.text) for page in pages] == [(200, True)] * 2
