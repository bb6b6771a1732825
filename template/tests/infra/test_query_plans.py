# Rung's file: advancing to another stage may change it.
"""The check of queries names those that read too much, and the index to add."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import asyncpg
import pytest
from pydantic import BaseModel
from sqlalchemy import (
    BigInteger,
    Column,
    Date,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    MetaData,
    Select,
    Table,
    Text,
    Time,
    Uuid,
    bindparam,
    column,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from app.infra.database import Database
from app.infra.reads import Query
from dev import query_plans
from dev.pytest_plugin import Databases, Services
from dev.query_plans import FilledTables, NotFilled
from tests.infra.conftest import connected, execute_sql
from tests.infra.test_database import settings

LIBRARY = MetaData()
SHELVES = Table(
    "Old shelves", LIBRARY, Column("id", BigInteger, primary_key=True), Column("room", Text)
)
BOOKS = Table(
    "books",
    LIBRARY,
    Column("id", BigInteger, primary_key=True),
    Column("title", Text, nullable=False),
    Column("shelf_id", ForeignKey("Old shelves.id"), nullable=False),
)
BOOK = BOOKS.c
CREATE = """
    CREATE TABLE "Old shelves" (id bigint PRIMARY KEY, room text);
    CREATE TABLE books (
        id bigint PRIMARY KEY, title text, shelf_id bigint REFERENCES "Old shelves"
    );
    CREATE INDEX ix_books_shelf_id_id ON books (shelf_id, id)
"""
COUNTED = (
    select(func.count())
    .where(BOOK.shelf_id == SHELVES.c.id)
    .correlate(SHELVES)
    .scalar_subquery()
    .label("books")
)


class Row(BaseModel):
    id: int


def query(statement: Select[*tuple[Any, ...]], **parts: Any) -> Query[Row]:
    return Query(statement, Row, **parts)


def page(statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    return statement.order_by(BOOK.id.desc()).limit(bindparam("limit"))


@pytest.fixture
async def library(empty_database: str) -> AsyncGenerator[asyncpg.Connection]:
    async with connected(empty_database) as connection:
        await connection.execute(CREATE)
        yield connection


READS_LITTLE = {
    "by its key": select(BOOK.id).where(BOOK.id == bindparam("id")),
    "by several keys": select(BOOK.id).where(BOOK.id.in_(bindparam("ids"))),
    "a page by an index": page(select(BOOK.id).where(BOOK.shelf_id == bindparam("shelf_id"))),
    "without parameters": select(BOOK.id).order_by(BOOK.id.desc()).limit(20),
    "a page with a total each": select(SHELVES.c.id, COUNTED).order_by(SHELVES.c.id).limit(20),
}
READS_MUCH = {
    "without an index": (
        select(BOOK.id).where(BOOK.title == bindparam("title")),
        'reads 19,999 rows .*Seq Scan on books.*Index\\("ix_books_title", "title"\\)',
    ),
    "a search in a text": (
        select(BOOK.id).where(BOOK.title.ilike(bindparam("like"))),
        r"reads 19,999 rows .* filter \(title ~~\* .*\)\. See docs/guide/queries\.md\.$",
    ),
    "the whole table": (select(func.count().label("id")).select_from(BOOKS), "reads 19,999 rows"),
    "a late page": (
        select(SHELVES.c.id, COUNTED)
        .order_by(SHELVES.c.id)
        .offset(bindparam("o", 10_000))
        .limit(20),
        "reads [0-9,]+ rows and [0-9,]+ pages to return 20",
    ),
    "a range that is filtered": (
        page(select(BOOK.id).where(BOOK.id < bindparam("before"), BOOK.title != bindparam("no"))),
        "filters the rows of an index range",
    ),
    "a range of one shelf": (
        page(
            select(BOOK.id).where(BOOK.id < bindparam("before"), BOOK.title == bindparam("title"))
        ),
        'Add an index like books_pkey with "title" before its range$',
    ),
    "a soft delete": (
        page(select(BOOK.id).where(BOOK.id < bindparam("before"), BOOK.title.is_not(None))),
        r'and give it a new name for Alembic: postgresql_where=text\("title IS NOT NULL"\)',
    ),
}


@pytest.mark.parametrize("statement", READS_LITTLE.values(), ids=READS_LITTLE)
async def test_a_query_that_reads_only_what_it_returns_is_accepted(
    library: asyncpg.Connection, statement: Select[*tuple[Any, ...]]
) -> None:
    tables = FilledTables(library, LIBRARY)
    await tables.insert()

    assert await tables.findings(query(statement)) == []


@pytest.mark.parametrize(("statement", "finding"), READS_MUCH.values(), ids=READS_MUCH)
async def test_a_query_that_reads_much_more_is_found(
    library: asyncpg.Connection, statement: Select[*tuple[Any, ...]], finding: str
) -> None:
    tables = FilledTables(library, LIBRARY)
    await tables.insert()

    [found] = await tables.findings(query(statement))

    assert pytest.raises(AssertionError, match=finding).matches(AssertionError(found)), found


async def test_each_optional_part_is_checked_alone(library: asyncpg.Connection) -> None:
    tables = FilledTables(library, LIBRARY)
    await tables.insert()
    searched = query(
        page(select(BOOK.id)),
        optional=[BOOK.shelf_id == bindparam("shelf_id"), BOOK.title == bindparam("title")],
    )

    found = await tables.findings(searched)

    assert [finding.split(":")[0] for finding in found] == ["with title"]


async def test_for_a_table_that_cannot_be_filled_the_error_gives_the_line_to_write(
    library: asyncpg.Connection,
) -> None:
    times = MetaData()
    Table(
        "times",
        times,
        Column("id", BigInteger, primary_key=True),
        Column("at", Time, nullable=False),
    )
    await library.execute("CREATE TABLE times (id bigint, at time)")
    unknown = MetaData()
    Table("reviews", unknown, Column("id", BigInteger, primary_key=True))

    with pytest.raises(NotFilled, match=r"Write VALUES\['TIME WITHOUT TIME ZONE'\] in tests/"):
        await FilledTables(library, times).insert()
    with pytest.raises(NotFilled, match='reviews has no migration: make migration m="add r'):
        await FilledTables(library, unknown).insert()
    await library.execute('ALTER TABLE "Old shelves" ADD CHECK (id < 10)')
    with pytest.raises(NotFilled, match=r"Write them as FILL\['Old shelves'\]"):
        await FilledTables(library, LIBRARY).insert()


CLINIC = MetaData()
VISITS = Table(
    "visits",
    CLINIC,
    Column("id", Uuid, primary_key=True, server_default=func.uuidv7()),
    Column("follows_id", ForeignKey("visits.id")),
)
DAYS = Table(
    "days",
    CLINIC,
    Column("day", Date, primary_key=True),
    Column("ward_id", BigInteger, primary_key=True),
    Column("noted_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
CLINIC_IN_SQL = """
    CREATE TABLE visits (id uuid PRIMARY KEY DEFAULT uuidv7(), follows_id uuid REFERENCES visits);
    CREATE TABLE days (
        day date, ward_id bigint, noted_at timestamptz DEFAULT now(), PRIMARY KEY (ward_id, day)
    )
"""


async def test_rows_that_name_their_own_table_and_times_are_checked_as_well(
    library: asyncpg.Connection,
) -> None:
    await library.execute(CLINIC_IN_SQL)
    tables = FilledTables(library, CLINIC)
    await tables.insert()
    follows = select(VISITS.c.id).where(VISITS.c.follows_id == bindparam("visit_id"))
    on_a_day = select(DAYS.c.ward_id.label("id")).where(DAYS.c.day == bindparam("day"))
    noted = select(DAYS.c.ward_id.label("id")).where(
        DAYS.c.noted_at >= bindparam("start"), DAYS.c.noted_at <= bindparam("end")
    )

    for one, compared in ((follows, "follows_id"), (on_a_day, "day"), (noted, "noted_at")):
        [found] = await tables.findings(query(one))
        assert f'"{compared}")' in found


WARDS = MetaData()
WARD = Table(
    "wards",
    WARDS,
    Column("clinic", Text(collation="C"), primary_key=True),
    Column("number", BigInteger, primary_key=True),
)
BED = Table(
    "beds",
    WARDS,
    Column("clinic", ForeignKey("clinics.code"), primary_key=True),
    Column("ward", BigInteger, primary_key=True),
    Column("state", Enum("free", "taken", name="bed_state"), nullable=False),
    ForeignKeyConstraint(["clinic", "ward"], ["wards.clinic", "wards.number"]),
)
CLINIC_OF_WARDS = Table("clinics", WARDS, Column("code", Text, primary_key=True))
WARDS_IN_SQL = """
    CREATE TYPE bed_state AS ENUM ('free', 'taken');
    CREATE TABLE clinics (code text PRIMARY KEY);
    CREATE TABLE wards (clinic text COLLATE "C", number bigint, PRIMARY KEY (clinic, number));
    CREATE TABLE beds (
        clinic text REFERENCES clinics, ward bigint, state bed_state NOT NULL,
        PRIMARY KEY (clinic, ward), FOREIGN KEY (clinic, ward) REFERENCES wards
    )
"""


async def test_keys_of_several_columns_and_enums_are_filled_and_compared(
    library: asyncpg.Connection,
) -> None:
    await library.execute(WARDS_IN_SQL)
    tables = FilledTables(library, WARDS, values={"bed_state": "'free'"})
    await tables.insert()
    of_state = (BED.c.state.in_(bindparam("states")), func.lower(BED.c.clinic) == bindparam("name"))

    [found] = await tables.findings(query(select(BED.c.ward.label("id")).where(*of_state)))

    assert "filter" in found


async def test_constants_in_lists_and_in_json_are_the_values_of_a_query(
    library: asyncpg.Connection,
) -> None:
    await library.execute("CREATE TYPE tint AS ENUM ('red', 'it''s blue')")
    await library.execute("ALTER TABLE books ADD tint tint, ADD data jsonb")
    tint = column("tint", Enum("red", "it's blue", name="tint"))
    data = column("data", JSONB)
    tables = FilledTables(library, LIBRARY)
    await tables.insert()

    for condition in (tint.in_(["red", "it's blue"]), data.contains({"a": [1]})):
        [found] = await tables.findings(query(select(BOOK.id).where(condition)))
        assert "Seq Scan on books" in found


async def test_a_list_is_compared_with_the_lists_of_a_column(library: asyncpg.Connection) -> None:
    await library.execute("CREATE TYPE tint AS ENUM ('red', 'blue')")
    await library.execute("CREATE TABLE paints (id bigint, tints tint[] DEFAULT '{}')")
    kind = ARRAY(Enum("red", "blue", name="tint"))
    tints: Column[Any] = Column("tints", kind, server_default="{}")
    paint = Table("paints", metadata := MetaData(), Column("id", BigInteger), tints)
    tables = FilledTables(library, metadata)
    await tables.insert()
    paints = select(paint.c.id).where(paint.c.tints.contains(bindparam("tints", type_=kind)))

    assert await tables.findings(query(paints.limit(20))) == []


async def test_a_member_of_an_enum_without_a_migration_is_named(
    library: asyncpg.Connection,
) -> None:
    await library.execute(WARDS_IN_SQL.replace("('free', 'taken')", "('free')"))

    with pytest.raises(NotFilled, match=r"ALTER TYPE bed_state ADD VALUE 'taken'"):
        await FilledTables(library, WARDS, values={"bed_state": "'free'"}).insert()


async def test_a_table_that_stays_empty_or_refuses_a_value_is_named(
    library: asyncpg.Connection,
) -> None:
    circle = MetaData()
    of_dogs = ForeignKey("dogs.id", use_alter=True, name="fk_owners_dog_id")
    Table("owners", circle, Column("id", BigInteger, primary_key=True), Column("dog_id", of_dogs))
    of_owners = ForeignKey("owners.id")
    Table("dogs", circle, Column("id", BigInteger, primary_key=True), Column("owner_id", of_owners))
    await library.execute("""
        CREATE TABLE owners (id bigint PRIMARY KEY, dog_id bigint);
        CREATE TABLE dogs (id bigint PRIMARY KEY, owner_id bigint)
    """)
    with pytest.raises(NotFilled, match=r"FILL\['owners'\].* a table that is still empty"):
        await FilledTables(library, circle).insert()
    await FilledTables(library, circle, {"owners": "(id) SELECT 1"}).insert()
    await library.execute('ALTER TABLE "Old shelves" ALTER id TYPE smallint USING id')
    small = {"Old shelves": "(id) SELECT 100000"}
    with pytest.raises(NotFilled, match=r"FILL\['Old shelves'\].* out of range"):
        await FilledTables(library, LIBRARY, small).insert()


@pytest.fixture
def elsewhere(databases: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with databases.created() as url:
        for table in LIBRARY.tables:
            monkeypatch.setitem(query_plans.ELSEWHERE, table, url)
        yield url


async def test_tables_of_another_database_are_filled_and_read_there(
    library: asyncpg.Connection, elsewhere: str
) -> None:
    await library.execute('DROP TABLE books, "Old shelves"')
    await execute_sql(elsewhere, CREATE)
    tables = FilledTables(library, LIBRARY)
    await tables.insert()

    assert await tables.findings(query(select(BOOK.id).where(BOOK.id == bindparam("id")))) == []
    [found] = await tables.findings(query(select(BOOK.id).where(BOOK.title == bindparam("of"))))
    assert "reads" in found


async def test_two_requests_with_one_statement_each_count_as_two(services: Services) -> None:
    connection = await asyncpg.connect(services.database_url)
    with services.statements.counted() as counted:
        for _ in range(2):
            async with connection.transaction():
                await connection.fetch("SELECT 1")
    await connection.fetch("SELECT 2")
    await connection.close()

    assert counted == ["SELECT 1", "SELECT 1"]


async def test_statements_of_a_transaction_count_as_well(services: Services) -> None:
    async with Database(settings(services)) as database:
        with services.statements.counted() as counted:
            async with database.transaction() as write:
                await write.execute(text("SELECT 3"))
                await write.execute(text("CREATE TEMP TABLE many (n int)"))
                await write.execute(text("INSERT INTO many VALUES (:n)"), [{"n": 1}, {"n": 2}])

    assert counted == ["SELECT 3", "CREATE TEMP TABLE many (n int)", "INSERT INTO many VALUES ($1)"]
