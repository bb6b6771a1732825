# Rung's file: advancing to another stage may change it.
"""Crossings of a module's border are found and listed, and the list only shrinks."""

import pytest

from dev.module_databases.borders import modules_in, tables_in
from tests.infra.module_databases.conftest import Practice

pytestmark = pytest.mark.slow

IN_THE_CODE = """\
app/pets/models.py:13: Pet.vet_id: foreign key of pets + vets
app/pets/models.py:15: Pet.vet: relationship of pets + vets
app/pets/queries.py:12: QUERIES.'with vets': statement of pets + vets
app/pets/queries.py:14: VISITS: statement of pets + vets
app/pets/service.py:14: visit: transaction of pets + vets
app/pets/service.py:18: all_of: statement of pets + vets
"""

IN_THE_TESTS = """\
app/pets/queries.py:23: counted: statement of pets + vets
app/pets/service.py:24: rename: transaction of pets + vets
"""

BORDERS = "dev.module_databases"
LINT = "dev.module_databases.lint"


def test_the_code_shows_the_crossings(practice: Practice) -> None:
    status, said = practice.runs(BORDERS, "vets")

    assert status == 0, said
    assert said.startswith(IN_THE_CODE + "\n"), said
    assert "foreign key: No foreign key spans two databases. Keep the column" in said
    assert "6 to change before the tables of vets can move.\nNo test has run yet." in said

    status, said = practice.runs(BORDERS, "vats")
    assert (status, said) == (1, "No module 'vats' has tables. These have: pets, vets\n")


@pytest.mark.parametrize(
    "sql",
    [
        '"select 1 from pets join vets on true"',
        '"table pets union table vets"',
        'f"SELECT {columns} FROM pets JOIN vets ON {columns}"',
        '"SELECT " + columns + " FROM pets" + " JOIN vets ON true"',
        'f"WITH a AS (SELECT 1 FROM {columns}.pets) SELECT 1 FROM a, vets"',
        "f\"{len('SELECT 1 FROM pets JOIN vets ON true')} letters\" + columns",
    ],
)
def test_the_code_shows_sql_in_strings(practice: Practice, sql: str) -> None:
    practice.write("app/pets/report.py", f"def report(columns: str) -> str:\n    return {sql}\n")

    _, said = practice.runs(BORDERS, "vets")

    assert "app/pets/report.py:2: report: statement of pets + vets\n" in said


def test_the_tests_show_crossings_that_the_code_hides(practice: Practice) -> None:
    status, said = practice.tests()
    assert status == 0, said  # there is no list yet, so nothing is refused

    _, said = practice.runs(BORDERS, "pets")

    together = sorted((IN_THE_CODE + IN_THE_TESTS).splitlines(), key=_place)
    assert said.split("\n\n")[0].splitlines() == together


NIGHTLY = """\
from app.infra.database import Database
from app.pets import service as pets
from app.vets import service as vets


async def run(database: Database) -> None:
    async with database.transaction() as write:
        await pets.all_of(write, 1)
    async with database.transaction() as write:
        await vets.note_visit(write, 1)


async def run_at_once(database: Database) -> None:
    async with database.transaction() as write:
        await pets.all_of(write, 1)
        await vets.note_visit(write, 1)
"""


def test_two_transactions_of_one_function_are_not_one(practice: Practice) -> None:
    practice.write("app/nightly.py", NIGHTLY)

    _, said = practice.runs(BORDERS, "vets")

    lines = [line for line in said.splitlines() if line.startswith("app/nightly.py:")]
    crossing = "app/nightly.py:16: run_at_once: transaction of pets + vets"
    assert [line for line in lines if "transaction" in line] == [crossing]


ALONE = """\
from app.infra import environment
from app.infra.connections import DatabaseSettings, transaction_engine


async def test_statements_without_a_transaction(database):
    engine = transaction_engine(environment.read(DatabaseSettings))
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        for table in ("pets", "vets"):
            await connection.exec_driver_sql(f"SELECT 1 FROM {table}")
    await engine.dispose()
"""


def test_statements_without_a_transaction_cross_no_border(practice: Practice) -> None:
    practice.write("tests/test_alone.py", ALONE)

    assert practice.tests("-k", "without_a_transaction")[0] == 0

    assert "tests/test_alone.py" not in practice.runs(BORDERS, "vets")[1]


def test_each_form_of_a_query_is_one_crossing(practice: Practice) -> None:
    parts = ", ".join(f'Vet.visits > bindparam("{name}")' for name in "abc")
    file = "app/pets/queries.py"
    practice.edit(file, "join(Vet), dict)", f"join(Vet), dict, optional=[{parts}])")
    practice.edit(file, "import select", "import bindparam, select")
    practice.edit(
        file,
        'return await read.all(QUERIES["with vets"])',
        'await read.count(QUERIES["with vets"]); '
        'return await read.all(QUERIES["with vets"], a=-1, b=-1)',
    )
    status, said = practice.tests()
    assert status == 0, said

    _, said = practice.runs(BORDERS, "pets")

    assert " with_vets: " not in said
    assert "QUERIES.'with vets': statement of pets + vets" in said


def test_a_table_without_a_class_belongs_to_the_module_that_makes_it(practice: Practice) -> None:
    made = "from sqlalchemy import Table\n{}\nlabels = Table('labels', Base.metadata)\n\n"
    base = "from app.infra.tables import Base\n"
    practice.edit("app/vets/models.py", base, made.format(base))
    practice.edit("app/pets/models.py", "import Vet\n", "import Vet, labels\n")
    practice.edit("app/pets/models.py", '"toys"', '"vets"\n    __table_args__ = {"schema": "shop"}')
    practice.write(
        "owners.py",
        "from app.infra.module_databases.__main__ import tables_of\n"
        "from app.infra.session_rows import LoginSession\n"
        "from app.pets import models\n"
        "from dev.module_databases.borders import owners\n"
        "models.sessions = LoginSession.__table__\n"
        "print([sorted(map(str, tables_of(one))) for one in ('pets', 'vets')])\n"
        "print(sorted(owners().items()))\n",
    )
    status, said = practice.runs("owners")
    guarded = [("labels", "vets"), ("pets", "pets"), ("shop.vets", "pets"), ("vets", "vets")]
    assert (status, said) == (0, f"[['pets', 'shop.vets'], ['labels', 'vets']]\n{guarded}\n")


ROUTES = """\
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from app.infra.database import ReadSession, WriteSession
from app.infra.module_databases.sessions import module_sessions
from app.infra.sessions import of_user
from app.pets import queries, service
from app.vets import service as vets

router = APIRouter()
pets = module_sessions("pets")
MinePets = Annotated[dict, Depends(of_user(queries.QUERIES["with toys"]))]


async def tom(write: WriteSession) -> object:
    return await service.all_of(write, 1)


@router.get("/pets")
async def all_pets(
    tom: Annotated[object, Depends(tom)], read: ReadSession
) -> list[dict[str, int]]:
    return await queries.with_vets(read)


@router.post("/visits")
async def of_another_module(write: WriteSession) -> None:
    await vets.note_visit(write, 1)


async def night(app: FastAPI) -> None:
    async with app.state.database.transaction() as write:
        await service.all_of(write, 1)
    async with app.state.database.transaction() as write:
        await vets.note_visit(write, 1)
    async with pets.transaction(app) as write:
        await service.all_of(write, 1)
    await queries.with_vets(pets.database(app).reader())
    await queries.with_vets(app.state.database.reader())


async def hidden(app: FastAPI) -> None:
    database = app.state.database


Write = WriteSession


@router.get("/visited")
async def visited(read: ReadSession) -> object:
    return await signed([], common=read)


async def signed(pets: list[int], common: ReadSession) -> object:
    from app.owners import queries as owners

    return await owners.names_of(common, pets)


@router.get("/counted")
async def counted(read: ReadSession) -> object:
    return await of_mine(read)


async def of_mine(read: ReadSession) -> object:
    return await queries.with_vets(read)
"""
WORKER = """\
from app.infra.connections import DatabaseSettings
from app.infra.database import Database, ReadSession
from app.pets import queries, service


async def job(settings: DatabaseSettings) -> None:
    async with Database(settings) as database, database.transaction() as write:
        await service.all_of(write, 1)


async def page(read: ReadSession) -> object:
    return await queries.with_vets(read)
"""
ON_THE_COMMON_DATABASE = """\
app/pets/routes.py:13: MinePets: common session of pets
app/pets/routes.py:16: tom: common session of pets
app/pets/routes.py:22: all_pets: common session of pets
app/pets/routes.py:33: night: common session of pets
app/pets/routes.py:44: hidden: common session of pets
app/pets/routes.py:47: Write: common session of pets
app/pets/routes.py:62: counted: common session of pets
app/worker.py:8: job: common session of pets
app/worker.py:12: page: common session of pets
"""


def test_a_module_that_moves_uses_no_session_of_the_common_database(practice: Practice) -> None:
    practice.write("app/pets/routes.py", ROUTES)
    practice.write("app/worker.py", WORKER)

    _, said = practice.runs(BORDERS, "pets")

    lines = [line for line in said.splitlines() if "common session of" in line]
    assert lines == ON_THE_COMMON_DATABASE.splitlines()
    assert "\ncommon session: After the move" in said
    assert "common session" not in practice.runs(BORDERS, "vets")[1]
    assert "common session" not in practice.runs(BORDERS)[1]

    # With a history of its own it has moved, or is about to.
    practice.write("migrations/pets/0001.py", "")
    assert "common session of pets" in practice.runs(BORDERS)[1]
    practice.write("module-borders.txt", "")
    status, said = practice.runs(LINT)
    assert status == 1
    assert "app/pets/routes.py:22: all_pets: common session of pets\n" in said


def test_the_list_of_crossings_can_only_shrink(practice: Practice) -> None:
    status, said = practice.runs(BORDERS, "", "yes")
    assert (status, said) == (1, "Run `make test` first: only the tests see every transaction.\n")
    assert practice.tests()[0] == 0

    status, said = practice.runs(BORDERS, "", "yes")
    assert (status, said) == (0, "module-borders.txt: 8 known crossing(s). Commit it.\n")
    assert practice.runs(LINT) == (0, "")
    status, said = practice.tests()
    assert status == 0, said

    # The lint sees a new crossing, and two that are gone.
    practice.edit("app/pets/queries.py", "VISITS =", "MORE_VISITS =")
    practice.edit("app/pets/models.py", 'mapped_column(ForeignKey("vets.id"))', "mapped_column()")
    practice.edit("app/pets/models.py", "\n    vet: Mapped[Vet] = relationship()\n", "")
    practice.edit("app/pets/queries.py", ".join(Vet)", ".join(Vet, Vet.id == Pet.vet_id)")
    practice.edit("app/pets/service.py", ".join(Vet)", ".join(Vet, Vet.id == Pet.vet_id)")
    status, said = practice.runs(LINT)
    assert status == 1
    new, advice, *gone = said.splitlines()
    assert new == "app/pets/queries.py:14: MORE_VISITS: statement of pets + vets"
    assert advice.endswith("What to write instead: make module-borders")
    assert [line.rpartition(": ")[2] for line in gone] == [
        "relationship of pets + vets",
        "foreign key of pets + vets",
    ]

    # Written again, the list has lost the crossings that are gone, and kept our comment.
    practice.edit("module-borders.txt", "app/pets/service.py v", "# Why\napp/pets/service.py v")
    _, said = practice.runs(BORDERS, "", "yes")
    assert "known crossing(s), 3 gone. Commit it.\n" in said
    assert "MORE_VISITS" not in practice.read("module-borders.txt")
    assert "# Why\napp/pets/service.py visit:" in practice.read("module-borders.txt")


def test_a_new_transaction_across_a_border_fails_the_tests(practice: Practice) -> None:
    assert practice.tests()[0] == 0
    practice.runs(BORDERS, "", "yes")
    practice.edit("app/pets/service.py", "async def rename(", "async def name_again(")
    practice.edit("tests/test_pets.py", "service.rename(", "service.name_again(")

    status, said = practice.tests("-n", "2")

    assert status == 1
    assert "app/pets/service.py:24: name_again: transaction of pets + vets\n" in said
    assert "module-borders.txt: gone, so delete this line: app/pets/service.py rename:" in said

    # A part of the tests cannot tell that a crossing is gone.
    status, said = practice.tests("-k", "visit")
    assert status == 0, said
    _, said = practice.runs(BORDERS, "pets")
    assert "name_again: transaction of pets + vets" in said


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("SELECT a FROM pets AS p, vets v JOIN toys USING (id)", {"pets", "vets", "toys"}),
        ('INSERT INTO shop."pets" (a) SELECT 1 FROM vets', {"shop.pets", "vets"}),
        ("UPDATE pets SET a = 'FROM vets' -- FROM toys", {"pets"}),
        ("DELETE FROM ONLY pets USING vets WHERE true", {"pets", "vets"}),
        ("WITH vets AS (SELECT (1) FROM pets) SELECT 1 FROM vets", {"pets"}),
        ("WITH vets AS (SELECT 1 FROM vets) SELECT 1 FROM vets, pets", {"pets", "vets"}),
        (
            'WITH a (b) AS NOT MATERIALIZED (SELECT 1 FROM pets), "vets" AS (SELECT 1 FROM a)'
            " SELECT 1 FROM vets JOIN toys USING (b)",
            {"pets", "toys"},
        ),
        ("WITH vets AS (SELECT 1 FROM pets) INSERT INTO vets TABLE vets", {"pets", "vets"}),
        ("WITH vets AS (SELECT 1 FROM pets) DELETE FROM vets", {"pets", "vets"}),
        ("WITH vets AS (SELECT 1 FROM pets) UPDATE ONLY vets SET a = 1", {"pets", "vets"}),
        ("WITH RECURSIVE vets AS (SELECT 1 FROM pets UNION SELECT 1 FROM vets) SELECT 1", {"pets"}),
        ("with Vets as (select 1 from PETS) select 1 from vets, Toys", {"pets", "toys"}),
        (
            'SELECT 1 FROM "Lost Pets" AS p, shop."Vets, Old" JOIN "a.b"',
            {"Lost Pets", "shop.Vets, Old", "a.b"},
        ),
        ("SELECT 1 FROM pets JOIN (vets JOIN toys ON true) ON true", {"pets", "vets", "toys"}),
        ("SELECT $$ FROM vets $$, $a$ FROM vets $a$ FROM pets WHERE a = $1", {"pets"}),
        ("SELECT 1 FROM f(1, toys) AS n (a, b), vets", {"f", "vets"}),
        ("SELECT 1 FROM f($1) WITH ORDINALITY AS n, ROWS FROM (g(2)), vets", {"f", "g", "vets"}),
        ("SELECT 1 FROM pets JOIN toys ON toys.a = pets.a, vets", {"pets", "toys", "vets"}),
        ("SELECT 1 FROM pets JOIN toys USING (a, b), vets v", {"pets", "toys", "vets"}),
        ("SELECT 1 FROM pets TABLESAMPLE SYSTEM (5), vets", {"pets", "vets"}),
        ("SELECT 1 FROM (SELECT a, b FROM pets WHERE a IN (1, 2)) p, vets", {"pets", "vets"}),
        ("SELECT 1 FROM (VALUES (1, 2), (3, 4)) p (a, b), vets", {"vets"}),
        ("SELECT 1 FROM pets, LATERAL (SELECT 1 FROM vets) v, toys", {"pets", "vets", "toys"}),
        ("SELECT 1 FROM ONLY (pets), ((vets) JOIN toys ON true)", {"pets", "vets", "toys"}),
        ("SELECT 1 FROM public . pets GROUP BY a, vets ORDER BY b, vets", {"public.pets"}),
        ("SELECT a IS DISTINCT FROM b, vets FROM pets", {"pets"}),
        ("SELECT E'it\\'s', ' FROM vets ', 1 AS \"it's\" FROM pets, toys", {"pets", "toys"}),
        ("TABLE pets UNION ALL TABLE vets", {"pets", "vets"}),
        (
            "MERGE INTO pets p USING (TABLE vets) v ON true WHEN MATCHED THEN DELETE",
            {"pets", "vets"},
        ),
        ("MERGE INTO pets USING vets ON true WHEN MATCHED THEN UPDATE SET a = 1", {"pets", "vets"}),
        ("TRUNCATE TABLE ONLY pets, vets CASCADE", {"pets", "vets"}),
        ("LOCK pets, vets IN SHARE MODE", {"pets", "vets"}),
        (
            "COPY pets (a, b) FROM STDIN; SELECT lock, toys FROM vets FOR UPDATE OF vets",
            {"pets", "stdin", "vets", "of"},
        ),
        ("INSERT INTO pets (a) SELECT 1 ON CONFLICT (a) DO UPDATE SET a = 1, b = 2", {"pets"}),
    ],
)
def test_tables_are_found_where_sql_names_them(sql: str, tables: set[str]) -> None:
    assert tables_in(sql) == tables


@pytest.mark.parametrize(
    ("sql", "modules"),
    [
        ("SELECT 1 FROM clinic.visits JOIN web.visits USING (id)", {"clinic", "web"}),
        ('SELECT 1 FROM "clinic"."visits", public.pets', {"clinic", "pets"}),
        ("SELECT 1 FROM visits", {"clinic", "web"}),
        ("SELECT 1 FROM other.visits", set()),
    ],
)
def test_two_schemas_may_have_a_table_of_one_name(sql: str, modules: set[str]) -> None:
    owner_of = {"clinic.visits": "clinic", "web.visits": "web", "pets": "pets"}
    assert modules_in(sql, owner_of) == modules


def _place(line: str) -> tuple[str, int]:
    file, number, _ = line.split(":", 2)
    return file, int(number)
