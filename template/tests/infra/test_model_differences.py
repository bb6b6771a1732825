# Rung's file: advancing to another stage may change it.
"""What Alembic does not compare is compared: constraints and indexes, as Postgres writes them."""

import asyncpg
import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    Date,
    Enum,
    ForeignKey,
    Index,
    MetaData,
    Sequence,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import INT4RANGE, ExcludeConstraint

from dev import model_differences

MIGRATED = """
    CREATE TYPE state AS ENUM ('open', 'done');
    CREATE TABLE rooms (code text, CONSTRAINT pk_before PRIMARY KEY (code));
    CREATE TABLE "Stays" (
        room text REFERENCES rooms, during int4range, state state NOT NULL,
        CONSTRAINT "pk_Stays" PRIMARY KEY (room, during),
        CONSTRAINT one_at_a_time EXCLUDE USING gist (during WITH &&) WHERE (state = 'open')
    );
    ALTER TABLE "Stays" ADD CONSTRAINT ends CHECK ((NOT upper_inf(during))) NOT VALID;
    CREATE INDEX "Open" ON "Stays" (room) WHERE state = 'open';
"""

# Alembic accepts each of these beside the models of the test.
EQUAL = """
    CREATE SCHEMA other;
    CREATE SEQUENCE other.numbers;
    CREATE TABLE bills (number text PRIMARY KEY, state varchar(4));
    ALTER TABLE bills ADD CHECK (state IN ('open', 'paid')), ADD CHECK (number > '') NO INHERIT;
    CREATE INDEX "State" ON bills (state) WITH (fillfactor = 70) WHERE state IN ('open', 'paid');
    ALTER TABLE bills ALTER state TYPE varchar(9), ADD previous text REFERENCES bills;
    CREATE TABLE visits (id text, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE INDEX "Day" ON visits (day);
"""


def model(
    *more: CheckConstraint, where: str = "state='open'", during_is_key: bool = True
) -> MetaData:
    metadata = MetaData()
    Table("rooms", metadata, Column("code", Text, primary_key=True))
    Table("halls", metadata, Column("code", Text, primary_key=True))
    Table(
        "Stays",
        metadata,
        Column("room", ForeignKey("rooms.code"), primary_key=True),
        Column("during", INT4RANGE, primary_key=during_is_key),
        Column("state", Enum("open", "done", name="state"), nullable=False),
        ExcludeConstraint(("during", "&&"), where=text(where), name="one_at_a_time"),
        CheckConstraint("NOT upper_inf(during)", name="ends"),
        Index("Open", "room", postgresql_where=text(where)),
        *more,
    )
    return metadata


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        (model(), []),
        (model(where="state = 'done'"), ["Open", "one_at_a_time"]),
        (model(CheckConstraint("NOT isempty(during)", name="lasts")), ["lasts"]),
        (model(during_is_key=False), ["Stays_pkey"]),
    ],
)
async def test_what_only_the_models_say_is_named(
    empty_database: str, changed: MetaData, names: list[str]
) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute(MIGRATED)
    await connection.close()

    found = await model_differences.found(empty_database, changed)

    assert [one.partition(":")[0].split()[-1] for one in found] == names


async def test_what_postgres_writes_in_another_way_is_no_difference(empty_database: str) -> None:
    connection = await asyncpg.connect(empty_database)
    await connection.execute(EQUAL)
    await connection.close()
    metadata = MetaData()
    Sequence("numbers", schema="other", metadata=metadata)
    is_known = "state IN ('open', 'paid')"
    state = Index("State", "state", postgresql_where=text(is_known), postgresql_concurrently=True)
    Table(
        "bills",
        metadata,
        Column("number", Text, primary_key=True),
        Column("state", String(9)),
        Column("previous", ForeignKey("bills.number")),
        CheckConstraint(is_known),
        CheckConstraint("number > ''"),
        state,
    )
    day = Column("day", Date, index=True, nullable=False)
    Table("visits", metadata, Column("id", Text, primary_key=True), day)

    assert await model_differences.found(empty_database, metadata) == []
