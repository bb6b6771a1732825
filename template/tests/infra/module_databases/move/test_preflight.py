# Rung's file: advancing to another stage may change it.
"""The preflight names each obstacle in one line."""

import dataclasses
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from app.infra.module_databases.move.copying import copy
from app.infra.module_databases.move.preflight import complaints
from app.infra.module_databases.move.sides import Move, Refused, connected
from app.infra.module_databases.move.tables import of_tables
from dev.pytest_plugin import Databases
from tests.infra.module_databases.move.conftest import ROLE

pytestmark = pytest.mark.slow

TRIGGER = """
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
    CREATE TRIGGER tells AFTER INSERT ON stamps FOR EACH ROW EXECUTE FUNCTION tell()
"""
# On both sides.
PARTS = """
    CREATE INDEX sent ON parcels (sent);
    CREATE TYPE kind AS ENUM ('box', 'bag');
    CREATE FUNCTION weight() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 7';
    ALTER TABLE parcels ADD kind kind, ADD weight int GENERATED ALWAYS AS (weight()) STORED;
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN /* for */ INSERT INTO public."Audit of *" VALUES (1); /* all */ RETURN NULL; END';
"""


# These name tables where no SQL reads one.
WORDS = """
    CREATE TABLE at (id int); CREATE TABLE audits (id int); CREATE SCHEMA other;
    CREATE TABLE other.boxes (id int); CREATE TEMP TABLE bags (id int);
    CREATE FUNCTION harmless() RETURNS trigger LANGUAGE plpgsql AS $function$
        DECLARE audits int; said text; BEGIN
            SELECT 1 INTO audits FROM boxes JOIN bags ON boxes.id = new.at;
            IF old.at IS DISTINCT FROM at THEN said := extract(epoch FROM at); END IF;
            said := 'it''s from audits' || E'it\\'s from audits' || $$ from audits $$;
            EXECUTE said USING new.at, nowhere.audits;
            RETURN NULL;
        END $function$;
"""
# It names no table.
CHANGED = """
    CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'
"""
CALLED = "CREATE TRIGGER notes AFTER INSERT ON stamps EXECUTE FUNCTION note()"


async def test_a_correct_setup_is_not_refused(move: Move) -> None:
    assert await complaints(move) == []


@pytest.mark.parametrize(
    ("side", "statement", "line"),
    [
        ("old", "DROP TABLE stamps", "stamps does not exist in The old database: run the migra"),
        ("new", "ALTER TABLE stamps DROP CONSTRAINT stamps_pkey", "stamps has no primary key, so"),
        (
            "new",
            "ALTER TABLE stamps REPLICA IDENTITY NOTHING",
            "stamps has REPLICA IDENTITY NOTHING, so each UPDATE would fail during the move. Set",
        ),
        (
            "old",
            "ALTER TABLE parcels ADD COLUMN height int",
            "parcels differs: 'height integer' is only in the old database. Run the migrations",
        ),
        (
            "new",
            "ALTER TABLE parcels ALTER COLUMN sent SET NOT NULL",
            "parcels differs: 'sent timestamp with time zone DEFAULT now()' is only in the old",
        ),
        (
            "new",
            "INSERT INTO parcels VALUES (uuidv7(), 'left behind')",
            "parcels has rows in the new database. Find out whose they are, and empty it.",
        ),
        (
            "old",
            "CREATE TABLE letters (id int PRIMARY KEY, parcel uuid REFERENCES parcels (id))",
            "letters: the foreign key letters_parcel_fkey leads to parcels, across the border.",
        ),
        (
            "new",
            "DROP TABLE stamps; CREATE TABLE stamps (id int) PARTITION BY HASH (id)",
            "stamps is partitioned or a view, and only plain tables can move.",
        ),
        (
            "old",
            "ALTER TABLE stamps DROP CONSTRAINT stamps_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
            "stamps has a DEFERRABLE primary key, so each UPDATE would fail during the move. Make",
        ),
        (
            "old",
            "ALTER TABLE parcels REPLICA IDENTITY FULL",
            "parcels has a generated column in its REPLICA IDENTITY, so each UPDATE would fail du",
        ),
        (
            "new",
            "ALTER TABLE stamps DROP CONSTRAINT stamps_pkey,"
            " ADD n int GENERATED ALWAYS AS (7) STORED PRIMARY KEY",
            "stamps has a generated column in its REPLICA IDENTITY, so each UPDATE would fail dur",
        ),
        (
            "old",
            "CREATE TABLE old_stamps () INHERITS (stamps)",
            "stamps has a parent or children (INHERITS, PARTITION OF), so the fence does not see",
        ),
        (
            "new",
            "ALTER TABLE stamps DROP parcel; ALTER TABLE stamps SET UNLOGGED",
            "stamps has no WAL (it is UNLOGGED or temporary), so replication has no source. Run AL",
        ),
        (
            "new",
            f"{TRIGGER}; ALTER TABLE stamps ENABLE ALWAYS TRIGGER tells",
            "stamps has a trigger that is ENABLE ALWAYS or REPLICA (tells), so it fires for rep",
        ),
        (
            "old",
            f"ALTER TABLE stamps OWNER TO {ROLE}, ENABLE ROW LEVEL SECURITY,"
            " FORCE ROW LEVEL SECURITY",
            "stamps has FORCE ROW LEVEL SECURITY, so its owner, as whom replication writes, may",
        ),
        (
            "old",
            "ALTER TABLE stamps ADD picture oid; SELECT lo_create(0)",
            "stamps has large objects (picture), so their bytes would stay behind. Move them to",
        ),
        (
            "old",
            TRIGGER,
            "stamps differs: 'CREATE TRIGGER tells AFTER INSERT ON public.stamps FOR EACH ROW EX",
        ),
        (
            "new",
            "DROP INDEX sent",
            "parcels differs: 'CREATE INDEX ON public.parcels USING btree (",
        ),
        (
            "new",
            "ALTER TABLE stamps ADD CHECK (id > 5)",
            "stamps differs: 'CHECK ((id > 5))' is only in the new database. Run the migrations",
        ),
        (
            "new",
            "ALTER TYPE kind ADD VALUE 'letter'",
            "parcels differs: 'TYPE kind: box, bag' is only in the old database. Run the migr",
        ),
        (
            "old",
            "CREATE OR REPLACE FUNCTION weight() RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 8'",
            "parcels differs: 'FUNCTION weight() AS SELECT 7' is only in the new database. Run",
        ),
        (
            "new",
            "ALTER TABLE parcels ALTER weight DROP EXPRESSION, ALTER weight SET DEFAULT weight()",
            "parcels differs: 'weight integer DEFAULT weight()' is only in the new database. Run",
        ),
        (
            "old",
            "ALTER TABLE stamps ENABLE ROW LEVEL SECURITY",
            "stamps differs: 'ROW LEVEL SECURITY' is only in the old database. Run the migrations",
        ),
        (
            "new",
            "CREATE SCHEMA shop; ALTER TABLE stamps SET SCHEMA shop;"
            " SET search_path = public, shop",
            "stamps differs: ",
        ),
        (
            "new",
            "ALTER SEQUENCE stamps_id_seq MAXVALUE 99",
            "The sequence stamps_id_seq differs: bigint from 1 to 9223372036854775807 by 1 in the",
        ),
        (
            "new",
            "ALTER SEQUENCE stamps_id_seq RENAME TO ids",
            "The sequence stamps_id_seq does not exist in the new database: run the migrations th",
        ),
        (
            "old",
            "CREATE VIEW late AS SELECT * FROM parcels",
            "The view late reads these tables, and the new database has no such view. Create it",
        ),
        (
            "old",
            'CREATE TABLE "Audit of *" (id int)',
            'The function note() uses "Audit of *", which does not move, so in the new database',
        ),
        (
            "old",
            "CREATE FUNCTION waiting() RETURNS int BEGIN ATOMIC SELECT 1 FROM stamps; END",
            "The function waiting() uses stamps, and the new database has no such function. Create",
        ),
        (
            "old",
            "CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql"
            " AS 'BEGIN insert into Parcels (id) SELECT uuidv7(); RETURN NULL; END';"
            " CREATE TABLE letters (id int) PARTITION BY HASH (id);"
            " CREATE TABLE letters_1 PARTITION OF letters FOR VALUES WITH (MODULUS 1, REMAINDER 0);"
            " CREATE TRIGGER sends AFTER INSERT ON letters FOR EACH ROW EXECUTE FUNCTION send()",
            "The trigger sends of letters uses parcels by the function send(), across the border.",
        ),
        (
            "old",
            "CREATE SCHEMA other CREATE TABLE audits (id int);"
            " CREATE OR REPLACE FUNCTION weight() RETURNS int LANGUAGE sql IMMUTABLE"
            " SET search_path = public, other AS 'SELECT 7';"
            " CREATE FUNCTION two() RETURNS int LANGUAGE sql SET search_path = public, other"
            " BEGIN ATOMIC SELECT 1 FROM (other.audits JOIN stamps USING (id)); END",
            "The function two() uses stamps, and the new database has no such function. Create",
        ),
        (
            "old",
            "CREATE TABLE letters (id int PRIMARY KEY DEFAULT nextval('stamps_id_seq'))",
            "The sequence stamps_id_seq also gives letters its values. After the cut both databas",
        ),
        (
            "new",
            "CREATE TABLE letters (id int PRIMARY KEY, parcel uuid REFERENCES parcels (id))",
            "letters: the foreign key letters_parcel_fkey leads to parcels, across the border.",
        ),
        (
            "new",
            f"REVOKE INSERT, DELETE ON stamps FROM {ROLE}",
            "The new database: the app's role lacks DELETE on stamps, INSERT on stamps. Grant it",
        ),
        (
            "old",
            f"CREATE SCHEMA {ROLE} CREATE TABLE stamps (id int);"
            f" GRANT ALL ON SCHEMA {ROLE} TO {ROLE}",
            "The old database: stamps is another table for the app than for the move. Give both",
        ),
        (
            "old",
            f"ALTER ROLE {ROLE} SUPERUSER",
            f"The old database: the app's role {ROLE} is a superuser: a fence might not stop it",
        ),
        (
            "new",
            f"ALTER ROLE {ROLE} SET default_transaction_isolation = 'repeatable read'",
            "The new database: the app's transactions are repeatable read, as its URL, its role or",
        ),
        (
            "new",
            f"ALTER ROLE {ROLE} NOLOGIN",
            f'The new database: the app cannot connect: role "{ROLE}" is not permitted to log in',
        ),
    ],
)
async def test_each_obstacle_is_one_line(move: Move, side: str, statement: str, line: str) -> None:
    for each in (move.old, move.new):
        await each.run(PARTS)
    await getattr(move, side).run(statement)
    try:
        found = await complaints(move)

        with pytest.raises(Refused) as refused:
            await copy(move)
    finally:
        await getattr(move, side).run(f"ALTER ROLE {ROLE} NOSUPERUSER LOGIN")
        await getattr(move, side).run(f"ALTER ROLE {ROLE} RESET ALL")
    assert [one[: len(line)] for one in found][:1] == [line]
    assert str(refused.value) == "\n".join(found)
    assert not await move.there.is_published()


@pytest.mark.parametrize(
    ("view", "part"),
    [
        ("CREATE MATERIALIZED VIEW late AS TABLE stamps", "CREATE UNIQUE INDEX ON late (id)"),
        (
            "CREATE VIEW late AS TABLE stamps",
            "CREATE TRIGGER late INSTEAD OF INSERT ON late FOR EACH ROW EXECUTE FUNCTION note()",
        ),
    ],
)
async def test_a_view_that_lacks_an_index_or_a_trigger_is_named(
    move: Move, view: str, part: str
) -> None:
    for side in (move.old, move.new):
        await side.run(f"{PARTS}; {view}")
    assert await complaints(move) == []
    await move.old.run(part)

    [line] = await complaints(move)
    assert line.startswith("The view late differs: 'CREATE ")


async def test_a_schema_that_the_app_may_not_use_is_named(move: Move) -> None:
    for side in (move.old, move.new):
        await side.run("CREATE SCHEMA clinic CREATE TABLE visits (id int PRIMARY KEY)")
        await side.run(f"GRANT ALL ON clinic.visits TO {ROLE}")
    await move.old.run(f"GRANT USAGE ON SCHEMA clinic TO {ROLE}")
    assert await complaints(dataclasses.replace(move, tables=("clinic.visits",))) == [
        "The new database: the app's role lacks USAGE on the schema clinic. Grant it what it has in"
        " the old one."
    ]


async def test_a_word_that_is_no_table_of_a_function_is_not_refused(move: Move) -> None:
    for side in (move.old, move.new):
        await side.run(WORDS)
    await move.new.run("DROP TABLE at, audits")

    assert await complaints(move) == []


@pytest.mark.parametrize(
    ("is_called", "there", "here"),
    [
        (False, CHANGED, "SELECT"),
        (False, "DROP FUNCTION note", "SELECT"),
        (True, CHANGED, CHANGED),
        (True, "DROP FUNCTION note CASCADE", "DROP FUNCTION note CASCADE"),
    ],
)
async def test_the_advice_about_a_function_ends_its_refusal(
    move: Move, is_called: bool, there: str, here: str
) -> None:
    for side in (move.old, move.new):
        await side.run(PARTS + (CALLED if is_called else ""))
    await move.old.run('CREATE TABLE "Audit of *" (id int)')
    [refusal] = await complaints(move)
    assert "Change or drop the function there. If a table that moves uses it" in refusal

    await move.new.run(there)
    await move.old.run(here)

    assert await complaints(move) == []


async def test_a_default_of_a_view_shares_no_sequence(move: Move) -> None:
    for side in (move.old, move.new):
        await side.run(
            "CREATE VIEW ids AS SELECT id FROM stamps;"
            " ALTER VIEW ids ALTER id SET DEFAULT nextval('stamps_id_seq')"
        )

    assert await complaints(move) == []


async def test_databases_that_sort_text_otherwise_are_refused(
    move: Move, servers: tuple[Databases, Databases]
) -> None:
    await move.old.run(
        "CREATE DATABASE sorted TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"
        " LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C'"
    )
    try:
        url = urlsplit(move.old.admin_url)._replace(path="/sorted").geturl()
        async with connected(url) as other:
            side = dataclasses.replace(move.old, connection=other)
            [locale] = [
                line
                async for line in of_tables(dataclasses.replace(move, old=side, tables=()), False)
            ]
    finally:
        await move.old.run("DROP DATABASE sorted")
    assert locale.startswith("The old database is SQL_ASCII sorted by bytes, and the new")


async def test_two_urls_of_one_database_are_refused(move: Move) -> None:
    same = dataclasses.replace(move, new=move.old)

    [found] = await complaints(same)

    assert found == "MOVE_FROM_URL and MOVE_TO_URL lead to one database: give the module its own."


@pytest.fixture
def plain_database(second_server: Databases) -> Iterator[str]:
    """On a server with Postgres' own settings."""
    with second_server.created() as url:
        yield url


async def test_a_server_that_cannot_replicate_is_named(move: Move, plain_database: str) -> None:
    async with connected(plain_database) as connection:
        side = dataclasses.replace(
            move.old,
            admin_url=plain_database,
            app_url=plain_database,
            connection=connection,
            heads=frozenset({"0007"}),
        )
        found = "\n".join(await complaints(dataclasses.replace(move, old=side)))

    assert "The old database: the app's role app is a superuser" in found
    assert "The old database: wal_level is not logical. Set it, and restart the server." in found
    assert "The old database: max_slot_wal_keep_size is unset, so a slot that nobody" in found
    assert "The old database: migrations are pending. Run them, and freeze those of" in found
    assert found.count("\n") == 3


async def test_slots_that_are_taken_are_counted(move: Move) -> None:
    free = int(await move.old.value("SHOW max_replication_slots"))
    for number in range(free - 2):
        await move.old.run(f"SELECT pg_create_physical_replication_slot('taken_{number}')")
    try:
        found = await complaints(move)
    finally:
        await move.old.run("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    assert found == [
        "The old database: 2 free of max_replication_slots, and the move needs 3. Raise it, and"
        " restart the server."
    ]


async def test_a_url_of_another_database_is_noticed(move: Move) -> None:
    elsewhere = urlsplit(move.old.app_url)._replace(path="/postgres").geturl()
    wrong = dataclasses.replace(move.old, app_url=elsewhere)

    assert await complaints(dataclasses.replace(move, old=wrong)) == [
        "The old database: the app's URL leads to another database than the move's."
    ]


@pytest.mark.parametrize(
    "parameter",
    [
        "default_transaction_isolation=serializable",
        "options=-c%20default_transaction_isolation%3Drepeatable%5C%20read",
    ],
)
async def test_a_url_whose_transactions_would_not_see_the_cut_is_refused(
    move: Move, parameter: str
) -> None:
    old = dataclasses.replace(move.old, app_url=f"{move.old.app_url}?{parameter}")

    [found] = await complaints(dataclasses.replace(move, old=old))

    assert re.match("The old database: the app's transactions are (repeatable|serializ)", found)
