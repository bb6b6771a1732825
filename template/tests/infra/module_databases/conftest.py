# Rung's file: advancing to another stage may change it.
"""A second Postgres, and a small app of two modules whose borders are crossed in each way."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev import postgres
from dev.postgres import REPOSITORY
from dev.pytest_plugin import RUN, Databases, wait_longer

FILES = {
    "pytest.ini": "[pytest]\ntestpaths = tests\nanyio_mode = auto\n",
    "app/__init__.py": "",
    "app/vets/__init__.py": "",
    "app/vets/models.py": """\
from sqlalchemy.orm import Mapped, mapped_column

from app.infra.tables import Base


class Vet(Base):
    __tablename__ = "vets"

    id: Mapped[int] = mapped_column(primary_key=True)
    visits: Mapped[int]
""",
    "app/vets/service.py": """\
from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.reads import Query, in_transaction
from app.vets.models import Vet

NOTE_VISIT = Query(
    update(Vet).where(Vet.id == bindparam("vet_id")).values(visits=Vet.visits + 1)
)


async def note_visit(write: AsyncSession, vet_id: int) -> None:
    await in_transaction(write).executemany(NOTE_VISIT, [{"vet_id": vet_id}])
""",
    "app/pets/__init__.py": "",
    "app/pets/models.py": """\
from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.infra.tables import Base
from app.vets.models import Vet


class Pet(Base):
    __tablename__ = "pets"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    vet_id: Mapped[int] = mapped_column(ForeignKey("vets.id"))

    vet: Mapped[Vet] = relationship()


class Toy(Base):
    __tablename__ = "toys"

    id: Mapped[int] = mapped_column(primary_key=True)
    pet_id: Mapped[int] = mapped_column(ForeignKey("pets.id"))
""",
    "app/pets/queries.py": '''\
"""SELECT pets and vets: this is no statement."""

from sqlalchemy import select

from app.infra.database import ReadSession
from app.infra.reads import Query
from app.pets.models import Pet, Toy
from app.vets.models import Vet

QUERIES = {
    "with toys": Query(select(Pet.id, Toy.id.label("toy")).join(Toy), dict),
    "with vets": Query(select(Pet.id, Vet.visits).join(Vet), dict),
}
VISITS = "SELECT p.id FROM pets p, vets v WHERE p.vet_id = v.id"
TOYS = "SELECT t.id FROM toys t JOIN pets p ON p.id = t.pet_id WHERE p.name <> 'FROM vets'"


async def with_vets(read: ReadSession) -> list[dict[str, int]]:
    return await read.all(QUERIES["with vets"])


async def counted(read: ReadSession, others: str) -> int:
    (row,) = await read.fetch(f"SELECT count(*) AS n FROM pets JOIN {others} v ON v.id = vet_id")
    return row["n"]
''',
    "app/pets/service.py": """\
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.module_databases.crossing import elsewhere
from app.infra.module_databases.sessions import module_sessions
from app.pets.models import Pet
from app.vets import service as vets
from app.vets.models import Vet


async def visit(write: AsyncSession, pet_id: int) -> None:
    pet = await write.get_one(Pet, pet_id)
    pet.name = pet.name.upper()
    await vets.note_visit(write, pet.vet_id)


async def all_of(write: AsyncSession, vet_id: int) -> list[Pet]:
    found = await write.scalars(select(Pet).join(Vet).where(Vet.id == vet_id))
    return list(found)


async def rename(write: AsyncSession, pet_id: int, then) -> None:
    (await write.get_one(Pet, pet_id)).name = "Rex"
    await then(write, 1)


async def visit_elsewhere(write: AsyncSession, pet_id: int) -> None:
    pet = await write.get_one(Pet, pet_id)
    async with elsewhere(write, module_sessions("vets")) as theirs:
        await vets.note_visit(theirs, pet.vet_id)
    await write.refresh(pet)
""",
    "tests/conftest.py": """\
import os

import asyncpg
import pytest

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database

TABLES = \"\"\"
    SELECT pg_advisory_xact_lock(1); -- two workers share the database
    CREATE TABLE IF NOT EXISTS vets (id bigint PRIMARY KEY, visits bigint);
    CREATE TABLE IF NOT EXISTS pets (id bigint PRIMARY KEY, name text, vet_id bigint);
    INSERT INTO vets VALUES (1, 0) ON CONFLICT DO NOTHING;
    INSERT INTO pets VALUES (1, 'Tom', 1) ON CONFLICT DO NOTHING;
\"\"\"


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
async def database():
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(TABLES)
    await connection.close()
    async with Database(environment.read(DatabaseSettings)) as database:
        yield database
""",
    "tests/test_pets.py": """\
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import FastAPI

from app.infra.module_databases.sessions import module_sessions
from app.pets import queries, service
from app.vets import service as vets


async def test_a_visit(database):
    async with database.transaction() as write:
        await service.visit(write, 1)
    assert await queries.with_vets(database.reader())


async def test_the_code_does_not_show_these(database):
    async with database.transaction() as write:
        await service.rename(write, 1, vets.note_visit)
    assert await queries.counted(database.reader(), "vets")


async def test_an_explicit_crossing_is_no_debt(database):
    app = FastAPI()
    app.state.database, app.state.module_databases = database, {}
    async with module_sessions("pets").transaction(app) as write:
        await service.visit_elsewhere(write, 1)


async def test_one_transaction_after_the_other_crosses_no_border(database):
    async with database.transaction() as write:
        await service.rename(write, 1, lambda *_: database.check())
    async with database.transaction() as write:
        await vets.note_visit(write, 1)


def migrate(connection):
    migration = Operations(MigrationContext.configure(connection))
    migration.execute("CREATE OR REPLACE VIEW pairs AS SELECT 1 AS one FROM pets, vets")


async def test_a_migration_is_no_debt(database):
    async with database.transaction() as write:
        await (await write.connection()).run_sync(migrate)
""",
}


class Practice:
    """The small app in its own folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name, text in FILES.items():
            self.write(name, text)
        for name in ("app/infra", "dev", "deploy"):
            shutil.copytree(REPOSITORY / name, folder / name)

    def write(self, name: str, text: str) -> None:
        (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        (self._folder / name).write_text(text, encoding="utf-8")

    def read(self, name: str) -> str:
        return (self._folder / name).read_text(encoding="utf-8")

    def edit(self, name: str, old: str, new: str) -> None:
        assert old in self.read(name)
        self.write(name, self.read(name).replace(old, new))

    def runs(self, *command: str) -> tuple[int, str]:
        """Runs `python -m …`; returns its exit status and its output."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=self._folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        return done.returncode, done.stdout + done.stderr

    def tests(self, *options: str) -> tuple[int, str]:
        plugins = ["-p", "dev.module_databases.plugin", "-p", "no:schemathesis"]
        return self.runs("pytest", "-q", *plugins, *options)


def set_database(environment: pytest.MonkeyPatch, module: str, url: str) -> None:
    """The URL of the module's own database, and the patience that each test has with the common
    one."""
    environment.setenv(f"MODULE_{module}_DATABASE_URL", url)
    wait_longer(environment, f"MODULE_{module}_DATABASE_")


@pytest.fixture(scope="package")
def second_server() -> Iterator[Databases]:
    """A Postgres beside that of the services."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    server = postgres.temporary_server(f"rung-second-{RUN}-{worker}")
    with server as url, Databases(url) as databases:
        yield databases


@pytest.fixture
def practice(empty_database: str, tmp_path: Path) -> Practice:
    return Practice(tmp_path)
