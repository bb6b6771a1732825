# Rung's file: advancing to another stage may change it.
"""Each feature of Query, which reads the same with and without a transaction, and its writes."""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import (
    ColumnElement,
    Label,
    Select,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    literal_column,
    select,
    table,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import insert as pg_insert
from sqlalchemy.exc import IntegrityError, PendingRollbackError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import Integer, Text

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import Unavailable
from app.infra.reads import Query, Reader, in_transaction, nested
from dev.pytest_plugin import Services
from tests.infra.conftest import execute_sql

BOOKS = table("books", column("id", Integer), column("title", Text), column("writer_id", Integer))
WRITERS = table("writers", column("id", Integer), column("name", Text))
BOOK, WRITER = BOOKS.c, WRITERS.c

LIBRARY = """
    CREATE TABLE writers (id int PRIMARY KEY, name text NOT NULL);
    CREATE TABLE books (id int PRIMARY KEY, title text NOT NULL, writer_id int);
    INSERT INTO writers VALUES (1, 'Le Guin'), (2, 'Lem');
    INSERT INTO books VALUES
        (1, 'Solaris', 2), (2, 'Lavinia', 1), (3, 'Eden', 2), (4, 'Beowulf', NULL)
"""


class Writer(BaseModel):
    id: int
    name: str


class Book(BaseModel):
    id: int
    title: str
    writer: Writer | None


@dataclass(frozen=True, slots=True)
class BookRow:
    id: int
    writer: Writer | None


class Title(BaseModel):
    title: str


_WITH_WRITERS = BOOKS.outerjoin(WRITERS, WRITER.id == BOOK.writer_id)

SHELF = Query(
    select(BOOK.id, BOOK.title, *nested("writer", WRITER.id, WRITER.name))
    .select_from(_WITH_WRITERS)
    .limit(bindparam("limit"))
    .offset(bindparam("offset", 0)),
    Book,
    optional=[
        BOOK.writer_id == bindparam("writer_id"),
        BOOK.title.between(bindparam("first"), bindparam("last")),
        BOOK.id.in_(bindparam("ids")),
        BOOK.id.not_in(bindparam("besides")),
    ],
    orders={"newest": BOOK.id.desc(), "title": (BOOK.title, BOOK.id)},
)

type Open = Callable[[], Any]

GUIDE = Path("docs/guide/queries.md").read_text()


class Table(DeclarativeBase):
    pass


class Author(Table):
    __tablename__ = "writers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Maker(Table):
    __tablename__ = "makers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Product(Table):
    __tablename__ = "products"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price_cents: Mapped[int]
    maker_id: Mapped[int]


class ProductOut(BaseModel):
    id: int
    name: str
    maker: Writer


@pytest.fixture
async def database(services: Services) -> AsyncGenerator[Database]:
    await execute_sql(services.database_url, LIBRARY)
    async with Database(environment.read(DatabaseSettings)) as database:
        yield database


@pytest.fixture(params=["alone", "in a transaction"])
def reading(database: Database, request: pytest.FixtureRequest) -> Open:
    @asynccontextmanager
    async def alone() -> AsyncGenerator[Reader]:
        yield database.reader()

    @asynccontextmanager
    async def within() -> AsyncGenerator[Reader]:
        async with database.transaction() as write:
            yield in_transaction(write)

    return alone if request.param == "alone" else within


@pytest.mark.parametrize(
    ("values", "titles"),
    [
        ({}, ["Beowulf", "Eden", "Lavinia", "Solaris"]),
        ({"writer_id": None, "ids": None}, ["Beowulf", "Eden", "Lavinia", "Solaris"]),
        ({"writer_id": 2}, ["Eden", "Solaris"]),
        ({"writer_id": 2, "order": "title"}, ["Eden", "Solaris"]),
        ({"order": "title"}, ["Beowulf", "Eden", "Lavinia", "Solaris"]),
        ({"first": "E", "last": "M"}, ["Eden", "Lavinia"]),
        ({"ids": [1, 2, 99]}, ["Lavinia", "Solaris"]),
        ({"ids": []}, []),
        ({"besides": [1, 2]}, ["Beowulf", "Eden"]),
        ({"besides": [1], "writer_id": 2, "order": None}, ["Eden"]),
    ],
)
async def test_optional_parts_count_when_they_are_given(
    reading: Open, values: dict[str, Any], titles: list[str]
) -> None:
    async with reading() as read:
        found = await read.all(SHELF, limit=9, **values)
        total = await read.count(SHELF, limit=1, offset=1, **values)

    assert [book.title for book in found] == titles
    assert total == len(titles)


async def test_a_parameter_may_be_called_query(reading: Open) -> None:
    found = Query(select(BOOK.title).where(BOOK.title.ilike(bindparam("query"))), Title)

    async with reading() as read:
        assert await read.first(found, query="sol%") == Title(title="Solaris")
        assert await read.count(found, query="%e%") == 2


async def test_a_joined_table_becomes_a_nested_model_or_none_without_a_match(reading: Open) -> None:
    as_rows = Query(
        select(BOOK.id, *nested("writer", WRITER.id, WRITER.name))
        .select_from(_WITH_WRITERS)
        .order_by(BOOK.id),
        BookRow,
    )

    async with reading() as read:
        page = await read.all(SHELF, limit=2)
        rows = await read.all(as_rows)

    assert page == [
        Book(id=4, title="Beowulf", writer=None),
        Book(id=3, title="Eden", writer=Writer(id=2, name="Lem")),
    ]
    assert rows[0] == BookRow(1, Writer(id=2, name="Lem"))
    assert rows[3] == BookRow(4, None)


async def test_a_model_may_be_selected_as_a_whole(reading: Open) -> None:
    async with reading() as read:
        found = await read.all(Query(select(Author).order_by(Author.id), Writer))

    assert found == [Writer(id=1, name="Le Guin"), Writer(id=2, name="Lem")]


async def test_clients_may_see_another_name_than_that_of_the_column(reading: Open) -> None:
    class BookOut(BaseModel):
        model_config = ConfigDict(alias_generator=to_camel)
        writer_id: int

    async with reading() as read:
        [found] = await read.all(Query(select(BOOK.writer_id).limit(1), BookOut))

    assert found.model_dump_json(by_alias=True) == '{"writerId":2}'


async def test_a_field_has_the_name_of_its_column_in_sql(reading: Open) -> None:
    columns = (func.max(BOOK.id), BOOK.title.label("it's {a} title"))
    first: Query[dict[str, Any]] = Query(select(*columns).group_by(BOOK.title).limit(1), dict)

    async with reading() as read:
        [found] = await read.all(first)

    assert set(found) == {"max_1", "it's {a} title"}


async def test_json_columns_are_read_as_python_values(reading: Open) -> None:
    class Document(BaseModel):
        content: dict[str, list[int]]

    stored: Label[Any] = literal_column("""'{"sizes": [1, 2]}'::jsonb""").label("content")

    async with reading() as read:
        assert await read.first(Query(select(func.to_jsonb(stored).label("content")), Document))


async def test_uuids_are_those_of_the_standard_library(database: Database) -> None:
    text = "01a219f5-dd56-7a73-97a3-dff9c7037c6f"
    some = [UUID(int=0), UUID(bytes=b"0123456789abcdef"), UUID(int=2**128 - 1)]
    sql = "SELECT one, NULL::uuid AS missing FROM unnest($1::uuid[]) AS one WHERE one <> $2"

    found = await database.reader().fetch(sql, [*some, text], UUID(int=0))
    with pytest.raises(asyncpg.DataError):
        await database.reader().fetch(sql, some, "not a UUID")

    assert [(type(row["one"]), row["one"]) for row in found] == [
        (UUID, one) for one in [*some[1:], UUID(text)]
    ]
    assert {row["missing"] for row in found} == {None}


async def test_a_transaction_reads_what_it_has_written_and_others_do_not(
    database: Database,
) -> None:
    async with database.transaction() as write:
        await write.execute(insert(BOOKS).values(id=5, title="Fiasko", writer_id=2))

        assert await in_transaction(write).count(SHELF, writer_id=2) == 3
        newer = "SELECT count(*) AS n FROM books WHERE id > $1"
        [row] = await in_transaction(write).fetch(newer, 4)
        assert row["n"] == 1  # as with a ReadSession
        assert await database.reader().count(SHELF, writer_id=2) == 2
        await write.rollback()


SHELVES = "CREATE TABLE shelves (id int PRIMARY KEY, labels jsonb NOT NULL, room text NOT NULL)"


class Shelf(Table):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    labels: Mapped[dict[str, int]] = mapped_column(JSONB)
    room: Mapped[str] = mapped_column(default="hall")


NEW_WRITER = Query(
    pg_insert(Author)
    .values(id=bindparam("id"), name=bindparam("name"))
    .on_conflict_do_nothing()
    .returning(Author.id, Author.name),
    Writer,
)
NEW_WRITER_ONLY = Query(insert(Author).returning(Author.id))
RENAME = Query(update(Author).where(Author.id == bindparam("which")).values(name=bindparam("to")))
NEW_SHELVES = Query(insert(Shelf))
NEW_SHELF = Query(insert(Shelf).returning(Shelf.labels, Shelf.room))
WRITERS_LOCKED = Query(select(Author).order_by(Author.id).with_for_update(), Writer)


async def test_a_query_in_a_transaction_may_write(database: Database) -> None:
    async with database.transaction() as write:
        transaction = in_transaction(write)
        assert await transaction.first(NEW_WRITER, id=3, name="Tove") == Writer(id=3, name="Tove")
        assert await transaction.first(NEW_WRITER, id=3, name="again") is None
        await transaction.executemany(RENAME, [{"which": n, "to": f"writer {n}"} for n in (1, 2)])
        await transaction.executemany(RENAME, [])

    async with database.transaction() as write:
        found = await in_transaction(write).all(WRITERS_LOCKED)
    assert [writer.name for writer in found] == ["writer 1", "writer 2", "Tove"]


async def test_what_a_query_has_written_is_rolled_back_with_the_rest(database: Database) -> None:
    async def fail() -> None:
        async with database.transaction() as write:
            await write.execute(insert(BOOKS).values(id=5, title="Fiasko", writer_id=2))
            async with write.begin_nested() as savepoint:
                await in_transaction(write).executemany(RENAME, [{"which": 1, "to": "a"}])
                await savepoint.rollback()
            before = await in_transaction(write).all(WRITERS_LOCKED)
            assert before[0].name == "Le Guin"
            await in_transaction(write).executemany(RENAME, [{"which": 2, "to": "b"}])
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    async with database.transaction() as write:
        assert [one.name for one in await in_transaction(write).all(WRITERS_LOCKED)] == [
            "Le Guin",
            "Lem",
        ]
        assert await in_transaction(write).count(SHELF) == 4


async def test_a_savepoint_takes_back_its_own_queries_alone(database: Database) -> None:
    async with database.transaction() as write:
        transaction = in_transaction(write)

        async def fail() -> None:
            async with write.begin_nested():
                await transaction.executemany(RENAME, [{"which": 2, "to": "lost"}])
                await transaction.first(NEW_WRITER_ONLY, id=1, name="twice")

        await transaction.executemany(RENAME, [{"which": 1, "to": "a"}])
        with pytest.raises(asyncpg.UniqueViolationError):
            await fail()
        async with write.begin_nested():
            await transaction.executemany(RENAME, [{"which": 2, "to": "b"}])
            async with write.begin_nested() as inner:
                await transaction.executemany(RENAME, [{"which": 1, "to": "lost"}])
                await inner.rollback()
        await transaction.first(NEW_WRITER_ONLY, id=3, name="c")

    async with database.transaction() as write:
        found = await in_transaction(write).all(WRITERS_LOCKED)
    assert [writer.name for writer in found] == ["a", "b", "c"]


async def test_a_query_after_a_failed_flush_is_refused(database: Database) -> None:
    """It would be committed although the rest of the transaction is not."""

    async def go_on() -> None:
        async with database.transaction() as write:
            await in_transaction(write).all(WRITERS_LOCKED)
            write.add(Author(id=1, name="twice"))
            with pytest.raises(IntegrityError):
                await write.flush()
            await in_transaction(write).executemany(RENAME, [{"which": 1, "to": "alone"}])

    with pytest.raises(PendingRollbackError):
        await go_on()

    async with database.transaction() as write:
        found = await in_transaction(write).all(WRITERS_LOCKED)
    assert [writer.name for writer in found] == ["Le Guin", "Lem"]


async def test_a_query_sees_a_changed_object_and_the_transaction_after_a_commit(
    database: Database,
) -> None:
    async with database.transaction() as write:
        author = await write.get_one(Author, 1)
        author.name = "Ursula"
        assert (await in_transaction(write).all(WRITERS_LOCKED))[0].name == "Ursula"
        await write.commit()
        async with database.transaction() as another:  # it may get the connection of the first
            await in_transaction(another).executemany(RENAME, [{"which": 2, "to": "S. L."}])
            await in_transaction(write).executemany(RENAME, [{"which": 1, "to": "U. L."}])
            assert author.name == "Ursula"
            await write.refresh(author)
            assert author.name == "U. L."

    async with database.transaction() as write:
        found = await in_transaction(write).all(WRITERS_LOCKED)
    assert [writer.name for writer in found] == ["U. L.", "S. L."]


async def test_sqlalchemy_runs_a_query_whose_types_or_defaults_need_it(
    database: Database, services: Services
) -> None:
    await execute_sql(services.database_url, SHELVES)
    async with database.transaction() as write:
        transaction = in_transaction(write)
        await transaction.executemany(NEW_SHELVES, [{"id": n, "labels": {"a": n}} for n in (1, 2)])
        found = await transaction.first(NEW_SHELF, id=3, labels={"b": 3})

    assert found == {"labels": {"b": 3}, "room": "hall"}
    of_shelves: Query[dict[str, Any]] = Query(select(Shelf.labels, Shelf.room).order_by(Shelf.id))
    assert [shelf["room"] for shelf in await database.reader().all(of_shelves)] == ["hall"] * 3


async def test_many_rows_run_the_same_sql_or_are_refused(
    database: Database, services: Services
) -> None:
    await execute_sql(services.database_url, SHELVES)
    to_all = update(Author).values(name=bindparam("to"))
    some = Query(to_all, optional=[Author.id == bindparam("i")])
    one, other = {"id": 1, "labels": {}}, {"id": 2, "labels": {}, "room": "attic"}

    async with database.transaction() as write:
        transaction = in_transaction(write)
        await transaction.executemany(NEW_SHELVES, [])
        with pytest.raises(TypeError, match="each row needs the same names"):
            await transaction.executemany(NEW_SHELVES, [one, other])
        with pytest.raises(TypeError, match="takes no `optional`"):
            await transaction.executemany(some, [{"to": "Ursula", "i": 1}])
        assert await transaction.fetch("SELECT id FROM shelves") == []


async def test_no_value_of_a_query_that_failed_is_in_its_error(database: Database) -> None:
    twin = Query(insert(Author))
    async with database.transaction() as write:
        with pytest.raises(asyncpg.UniqueViolationError) as failed:
            await in_transaction(write).executemany(twin, [{"id": 1, "name": "hunter2"}])
        await write.rollback()

    assert failed.value.constraint_name == "writers_pkey"
    assert failed.value.detail is None


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        ("pg_terminate_backend(pg_backend_pid())", Unavailable),
        ("pg_sleep(9)", Unavailable),
        ("1 / (random() * 0)::int", asyncpg.DivisionByZeroError),
    ],
)
async def test_a_query_that_fails_in_a_transaction_is_unavailable_if_it_may_succeed_later(
    services: Services, failing: str, error: type[Exception]
) -> None:
    query: Query[Any] = Query(select(literal_column(failing).label("n")))
    narrow = environment.read(DatabaseSettings).model_copy(
        update={"write_pool": 1, "statement_seconds": 0.5}
    )
    async with Database(narrow) as database:
        with pytest.raises(error):
            async with database.transaction() as write:
                await in_transaction(write).all(query)
        async with database.transaction() as write:
            assert await in_transaction(write).fetch("SELECT 1")


async def test_of_two_statements_at_once_in_a_transaction_one_waits(database: Database) -> None:
    slow: Query[Any] = Query(select(func.pg_sleep(0.2)))

    async with database.transaction() as write:
        transaction = in_transaction(write)
        await transaction.all(slow)
        at_once = transaction.all(slow), transaction.fetch("SELECT 1"), transaction.all(slow)
        assert [len(found) for found in await asyncio.gather(*at_once)] == [1, 1, 1]


async def test_after_a_change_of_a_type_one_transaction_finds_out_for_all(
    services: Services,
) -> None:
    settings = environment.read(DatabaseSettings).model_copy(update={"write_pool": 3})
    shared = Query(select(Author).with_for_update(read=True), Writer)
    refused = 0
    async with Database(settings) as database, AsyncExitStack() as stack:
        await execute_sql(services.database_url, LIBRARY)
        open_at_once = [await stack.enter_async_context(database.transaction()) for _ in range(3)]
        for write in open_at_once:  # each on a connection of its own
            await in_transaction(write).all(shared)
        for write in open_at_once:
            await write.commit()
        await execute_sql(services.database_url, "ALTER TABLE writers ALTER COLUMN id TYPE bigint")
        for _ in range(6):
            try:
                async with database.transaction() as write:
                    await in_transaction(write).all(shared)
            except Unavailable:
                refused += 1
    assert refused == 1


async def test_each_form_is_compiled_once(database: Database) -> None:
    first = SHELF.form({"limit": 1, "writer_id": 2})

    assert SHELF.form({"limit": 9, "writer_id": 1, "ids": None}) is first
    assert SHELF.form({"limit": 9}) is not first
    assert SHELF.count({"writer_id": 1}) is SHELF.count({"writer_id": 2})


def test_the_forms_are_each_part_alone_all_together_and_none() -> None:
    assert [said for said, _ in SHELF.forms() if "newest" in said] == [
        "in order 'newest'",
        "with writer_id in order 'newest'",
        "with besides, first, ids, last, writer_id in order 'newest'",
        "with first, last in order 'newest'",
        "with ids in order 'newest'",
        "with besides in order 'newest'",
    ]


async def test_each_mistake_has_a_clear_message(database: Database) -> None:
    read: Any = database.reader()

    with pytest.raises(TypeError, match=r"order must be one of \['newest', 'title'\], got 'size'"):
        await read.all(SHELF, limit=1, order="size")
    with pytest.raises(TypeError, match=r"takes \['limit', 'writer_id'\], got \['writer_id'\]"):
        await read.all(SHELF, writer_id=1)
    with pytest.raises(TypeError, match=r"got .*'wirter'"):
        await read.all(SHELF, limit=1, wirter=1)
    with pytest.raises(TypeError, match="PEOPLE = Query"):
        await read.all(select(BOOK.title))
    for name in ("execute", "scalars", "scalar", "get"):
        with pytest.raises(AttributeError, match=f"{name}: .*PEOPLE = Query"):
            getattr(read, name)
    with pytest.raises(TypeError, match="needs a bindparam"):
        Query(select(BOOK.title), Title, optional=[BOOK.id == 1])
    with pytest.raises(TypeError, match="a statement that has a WHERE: INSERT INTO"):
        Query(insert(BOOKS), optional=[BOOK.id == bindparam("id")])
    with pytest.raises(TypeError, match="orders needs a SELECT: DELETE FROM"):
        Query(delete(BOOKS), orders={"id": BOOK.id})
    with pytest.raises(TypeError, match="count needs a SELECT: DELETE FROM"):
        await read.count(Query(delete(BOOKS)))


async def test_an_order_may_be_attributes_of_a_model(database: Database) -> None:
    writers = Query(
        select(Author.id, Author.name),
        Writer,
        orders={"id": Author.id, "name": (Author.name.desc(), Author.id)},
    )
    assert [one.id for one in await database.reader().all(writers, order="name")] == [2, 1]


async def test_the_example_of_the_guide_works(empty_database: str) -> None:
    names = {**globals(), "ReadSession": Reader, "UUID": int}
    [example] = re.findall(r"^```python\nPRODUCTS = .*?^```", GUIDE, re.DOTALL | re.MULTILINE)
    exec(example.removeprefix("```python").removesuffix("```"), names)  # noqa: S102
    await execute_sql(
        empty_database,
        """
        CREATE TABLE makers (id int, name text);
        CREATE TABLE products (id int, name text, price_cents int, maker_id int);
        INSERT INTO makers VALUES (1, 'Ada'), (2, 'Ben');
        INSERT INTO products VALUES (1, 'Mug', 100, 1), (2, 'Bowl', 200, 2), (3, 'Cup', 100, 1)
    """,
    )

    async with Database(environment.read(DatabaseSettings)) as database:
        ada = await names["product_page"](database.reader(), 1, 1, "name")
        everything = await names["product_page"](database.reader(), 9, None, None)
        from_200 = await database.reader().all(names["PRODUCTS"], limit=9, from_cents=200)

    assert ada == ([ProductOut(id=3, name="Cup", maker=Writer(id=1, name="Ada"))], 2)
    assert [product.id for product in everything[0]] == [3, 2, 1]
    assert everything[1] == 3
    assert [product.name for product in from_200] == ["Bowl"]


def test_a_query_keeps_the_constants_of_its_statement() -> None:
    some: Select[Any] = select(BOOK.title).where(BOOK.id < literal(5), BOOK.writer_id.in_([1, 2]))

    assert Query(some, Title).fixed.arguments({}) == [5, [1, 2]]


@pytest.mark.parametrize(
    "condition",
    [
        tuple_(BOOK.id, BOOK.title).in_(bindparam("keys")),
        BOOK.id == bindparam("id", 1, literal_execute=True),
    ],
)
def test_a_query_refuses_sql_that_differs_with_its_values(condition: ColumnElement[bool]) -> None:
    with pytest.raises(TypeError, match=r"compare tuples with a SELECT from unnest.*SELECT books"):
        _ = Query(select(BOOK.title).where(condition), Title).fixed


def test_a_query_refuses_two_columns_of_one_name() -> None:
    with pytest.raises(TypeError, match="label"):
        _ = Query(select(BOOK.id, WRITER.id), Title).fixed


def test_a_query_knows_where_it_was_declared() -> None:
    assert SHELF in Query.declared
    assert SHELF.declared_at.startswith("tests.infra.test_queries:")
