# Rung's file: advancing to another stage may change it.
"""Each database has its own history of migrations, and the module's holds its own tables only."""

import asyncio
import re
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
MAIN = "import app.infra.module_databases\nimport app.pets.models\nimport app.vets.models\n"
MODULE = "app.infra.module_databases"
RELEASE = f"{MODULE}.migrate"
ODD_NAME = "my shop, 50% off: %(here)s"
VETS = """\
import enum

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base

NOTES = Table("Notes: 5%", Base.metadata, Column("of", ForeignKey("calls.id"), primary_key=True))


class Kind(enum.Enum):
    cat = "cat"
    dog = "dog"


class Call(Base):
    __tablename__ = "calls"

    id: Mapped[int] = mapped_column(primary_key=True)
    vet_id: Mapped[int] = mapped_column(ForeignKey("vets.id"))


class Vet(Base):
    __tablename__ = "vets"

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int]
    kind: Mapped[Kind | None]


class Bill(Base):
    __tablename__ = "bills"
    __table_args__ = ({"schema": "money"},)

    id: Mapped[int] = mapped_column(primary_key=True)
"""
# As a cut leaves it. A team may have deleted the code of the move.
CLOSED_FENCE = """
CREATE FUNCTION move_vets_fence() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE 'The tables of vets take no writes here';
END $$
"""
# Alembic knows none of these.
FURTHER = r'''
CREATE VIEW called AS SELECT * FROM vets WHERE EXISTS (SELECT FROM calls WHERE vet_id = vets.id);
CREATE MATERIALIZED VIEW digits AS SELECT id FROM called WHERE id::text ~ '\d';
CREATE VIEW """odd""" WITH (security_invoker=true) AS SELECT id, '{"a":true, "b\:c::d"}' AS json
    FROM vets WHERE id::text ~ '[[:digit:]]' AND id::text <> '"""';
CREATE FUNCTION more(digits, text) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT count(*) FROM vets WHERE visits::text <> $2; END;
CREATE FUNCTION most(int) RETURNS bigint LANGUAGE sql
    BEGIN ATOMIC SELECT more(digits, ':a') FROM digits; END;
CREATE VIEW mosts AS SELECT most(1);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
CREATE TRIGGER noted BEFORE INSERT ON "Notes: 5%" FOR EACH ROW EXECUTE FUNCTION note();
CREATE TRIGGER instead INSTEAD OF INSERT ON called FOR EACH ROW EXECUTE FUNCTION note();
'''
FOUND = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT concat(relname, reloptions, pg_get_viewdef(oid)) FROM pg_class
WHERE relkind IN ('v', 'm') AND relnamespace = 'public'::regnamespace
UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname IN ('more', 'most')
"""
BROKEN = "def upgrade() -> None:\n    raise RuntimeError"


@pytest.fixture
def own(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with databases.created() as url:
        monkeypatch.setenv("MODULE_VETS_DATABASE_URL", url)
        yield url


@pytest.fixture
def migrated(practice: Practice, tmp_path: Path) -> Practice:
    return with_histories(practice, tmp_path)


def with_histories(practice: Practice, folder: Path) -> Practice:
    practice.write("pyproject.toml", PROJECT)
    practice.write("app/main.py", MAIN)
    (folder / "migrations/versions").mkdir(parents=True)
    for name in ("env.py", "script.py.mako"):
        shutil.copy(REPOSITORY / "migrations" / name, folder / "migrations")
    return practice


def tables(url: str) -> set[str]:
    return names(url, "SELECT tablename FROM pg_tables WHERE schemaname IN ('public', 'money')")


def names(url: str, query: str) -> set[str]:
    async def fetched() -> set[str]:
        connection = await asyncpg.connect(url)
        rows = await connection.fetch(query)
        await connection.close()
        return {row[0] for row in rows}

    return asyncio.run(fetched())


def run(url: str, statements: str) -> None:
    async def executed() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statements)
        await connection.close()

    asyncio.run(executed())


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


def test_the_repository_may_lie_in_a_folder_of_any_name(
    tmp_path: Path, empty_database: str, own: str
) -> None:
    odd = with_histories(Practice(tmp_path / ODD_NAME), tmp_path / ODD_NAME)
    for command in (["revision", "--autogenerate", "-m", "the vets"], ["upgrade", "head"]):
        status, said = odd.runs(MODULE, "vets", *command)
        assert status == 0, said
    assert tables(own) == {"vets", "alembic_version"}


def test_the_command_says_what_is_wrong(migrated: Practice) -> None:
    assert migrated.runs(MODULE, "vats", "current")[1] == (
        "No table belongs to the module 'vats': app/vats/ has no models.\n"
    )
    assert migrated.runs(MODULE)[1].startswith(f"Use: python -m {MODULE} MODULE COMMAND")
    status, said = migrated.runs(MODULE, "vets", "current")
    assert (status, "  MODULE_VETS_DATABASE_URL: Field required" in said) == (1, True), said


@pytest.fixture
def histories(migrated: Practice, empty_database: str, own: str) -> Practice:
    """With a first migration of each database, which has not run yet."""
    for history in (["alembic"], [MODULE, "vets"]):
        status, said = migrated.runs(*history, "revision", "--autogenerate", "-m", "first")
        assert status == 0, said
    return migrated


def test_two_heads_are_merged_while_make_dev_cannot_start(
    histories: Practice, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It migrates first, so with two heads it lends no variable."""
    second = ["revision", "--head", "base", "-m", "second"]
    status, said = histories.runs(MODULE, "vets", *second)
    assert status == 0, said
    status, said = histories.runs(MODULE, "vets", "upgrade", "head")
    assert (status != 0, " vets merge heads -m" in said) == (True, True), said

    with monkeypatch.context() as alone:
        alone.delenv("MODULE_VETS_DATABASE_URL")
        status, said = histories.runs(MODULE, "vets", "merge", "heads", "-m", "merge")
    assert status == 0, said
    status, said = histories.runs(MODULE, "vets", "upgrade", "head")
    assert status == 0, said


def test_a_release_migrates_the_common_database_and_each_that_has_a_url(
    histories: Practice, empty_database: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, said = histories.runs(RELEASE)

    assert status == 0, said
    assert "pets" in tables(empty_database)
    assert tables(own) == {"vets", "alembic_version"}

    status, again = histories.runs(RELEASE)
    assert (status, "Applied" in again) == (0, False), again

    monkeypatch.delenv("MODULE_VETS_DATABASE_URL")
    assert histories.runs(RELEASE) == (0, "Migrating the common database\n")


def test_a_database_that_cannot_be_migrated_is_named_and_the_next_run_goes_on(
    histories: Practice, empty_database: str, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("MODULE_VETS_DATABASE_URL", own.replace("rung_test_", "no_such_"))
        status, said = histories.runs(RELEASE)
    assert status == 1
    assert said.splitlines()[-1] == (
        "The migration of the database of vets has failed: the reason is above. Already at its"
        " newest migration: the common database. Correct it, and run the release again: it"
        " continues here."
    )
    assert "vets" not in tables(own)

    assert histories.runs(RELEASE)[0] == 0
    assert tables(own) == {"vets", "alembic_version"}


def test_a_failure_of_the_common_database_leaves_the_modules_as_they_are(
    histories: Practice, own: str, tmp_path: Path
) -> None:
    [first] = (tmp_path / "migrations/versions").glob("*.py")
    first.write_text(first.read_text().replace("def upgrade() -> None:", BROKEN))

    status, said = histories.runs(RELEASE)

    assert status == 1
    assert "The migration of the common database has failed" in said.splitlines()[-1]
    assert "vets" not in tables(own)


@pytest.mark.parametrize(
    ("variable", "reason"),
    [
        ("MODULE_PETS_DATABASE_URL", "migrations/pets does not exist"),
        ("MODULE_VATS_DATABASE_READ_POOL", "MODULE_VATS_DATABASE_URL: Field required"),
    ],
)
def test_nothing_is_migrated_when_a_module_is_not_complete(
    histories: Practice,
    empty_database: str,
    own: str,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    reason: str,
) -> None:
    monkeypatch.setenv(variable, own if variable.endswith("URL") else "4")

    status, said = histories.runs(RELEASE)

    assert (status, reason in said) == (1, True), said
    assert "pets" not in tables(empty_database)


@pytest.fixture
def moved(migrated: Practice, empty_database: str, own: str, tmp_path: Path) -> Practice:
    """Both databases have the tables of the module, and no foreign key crosses its border."""
    for name in ("dev", "deploy"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, dirs_exist_ok=True)
    migrated.edit("app/pets/models.py", 'mapped_column(ForeignKey("vets.id"))', "mapped_column()")
    migrated.edit("app/pets/models.py", "    vet: Mapped[Vet] = relationship()\n", "")
    migrated.write("app/vets/models.py", VETS)
    for url in (empty_database, own):
        run(url, "CREATE SCHEMA money")
    for history in (["alembic"], [MODULE, "vets"]):
        status, said = migrated.runs(*history, "revision", "--autogenerate", "-m", "first")
        assert status == 0, said
    status, said = migrated.runs(RELEASE)
    assert status == 0, said
    return migrated


def test_the_old_tables_are_dropped_by_a_migration_and_no_later_one_makes_them_again(
    moved: Practice, empty_database: str, own: str, tmp_path: Path
) -> None:
    run(empty_database, FURTHER)
    further = names(empty_database, FOUND)
    moved.edit("app/pets/models.py", "    name:", "    age: Mapped[int | None]\n    name:")
    moved.edit("app/vets/models.py", "    visits:", "    city: Mapped[str | None]\n    visits:")
    status, said = moved.runs("alembic", "check")  # the rows may still be in use here
    assert (status, "Column('city'" in said) == (255, True), said

    status, said = moved.runs("dev.module_databases.dropping", "vets")
    assert (status, "run `own` again" in said) == (0, True), said
    [drop] = tmp_path.glob("migrations/versions/*_drop_the_old_tables_of_vets.py")
    assert "pets" not in drop.read_text()
    accepted = re.findall(r"ban-drop-(view|function)", drop.read_text())
    assert sorted(accepted) == ["function"] * 2 + ["view"] * 4
    status, said = moved.runs("alembic", "upgrade", "head")
    assert status == 0, said
    assert tables(empty_database) == {"pets", "toys", "alembic_version"}

    status, said = moved.runs("alembic", "revision", "--autogenerate", "-m", "the age")
    assert (status, "make module-migration NAME=vets" in said) == (0, True), said
    [age] = tmp_path.glob("migrations/versions/*_the_age.py")
    assert "age" in age.read_text()
    assert "vets" not in age.read_text()
    for command in (["upgrade", "head"], ["check"], ["downgrade", "-2"]):
        status, said = moved.runs("alembic", *command)
        assert status == 0, said
    assert names(empty_database, FOUND) == further
    status, said = moved.runs("alembic", "upgrade", "head")
    assert status == 0, said

    assert moved.runs(MODULE, "vets", "revision", "--autogenerate", "-m", "the city")[0] == 0
    [city] = tmp_path.glob("migrations/vets/*_the_city.py")
    assert "city" in city.read_text()
    again = moved.runs("dev.module_databases.dropping", "vets")
    assert "The common database has no table of vets: nothing to drop.\n" in again[1], again
    assert moved.runs("dev.module_databases.dropping", "pets")[1] == (
        "'pets' has no own history of migrations. Modules that have one: vets.\n"
    )


def test_the_migration_drops_no_row_that_may_be_in_use(
    moved: Practice, empty_database: str, own: str
) -> None:
    run(empty_database, "INSERT INTO vets VALUES (1, 0)")
    assert moved.runs("dev.module_databases.dropping", "vets")[0] == 0

    status, said = moved.runs("alembic", "upgrade", "head")
    assert status == 1
    assert "The old tables of vets have rows, and no move has closed them" in said
    assert 'TRUNCATE money.bills, vets, calls, "Notes: 5%"' in said
    assert "vets" in tables(empty_database)

    run(empty_database, CLOSED_FENCE)
    assert moved.runs("alembic", "upgrade", "head")[0] == 0
    assert "vets" not in tables(empty_database)
