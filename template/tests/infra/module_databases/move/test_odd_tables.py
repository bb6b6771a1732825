# Rung's file: advancing to another stage may change it.
"""Tables of other businesses move there and back: each row, each next value, each view."""

import dataclasses

import asyncpg
import pytest

from app.infra.module_databases.move import comparing
from app.infra.module_databases.move.comparing import compare
from app.infra.module_databases.move.copying import copy
from app.infra.module_databases.move.cutting import back, cut
from app.infra.module_databases.move.preflight import complaints
from app.infra.module_databases.move.sides import Move, Side, Way
from tests.infra.module_databases.move.conftest import ROLE, are_equal

pytestmark = pytest.mark.slow

TABLES = (
    '"50% off"',
    '"Order of {a}"',
    "chapters",
    "downwards",
    "empty",
    "numbers",
    "people",
    "receipts",
    "rooms",
    "shop.items",
    "tickets",
    "visits",
)
SCHEMA = """
    CREATE EXTENSION citext;
    CREATE EXTENSION btree_gist;
    CREATE SCHEMA shop;
    CREATE TYPE shop.state AS ENUM ('new', 'old');
    CREATE DOMAIN shop.price AS numeric CHECK (value >= 0);
    CREATE TYPE shop.size AS (wide int, state shop.state);
    CREATE TABLE shop.items (
        a int, b text, state shop.state DEFAULT 'new', price shop.price DEFAULT 0,
        twice int GENERATED ALWAYS AS (a * 2) STORED,
        thrice int GENERATED ALWAYS AS (a * 3) VIRTUAL,
        size shop.size, states shop.state[] DEFAULT '{new,old}', PRIMARY KEY (b, a)
    );
    CREATE TABLE "Order of {a}" (
        "Id" serial PRIMARY KEY, "select" int, "with space" text DEFAULT 'it''s', "per%cent" int
    );
    CREATE TABLE "50% off" (id smallint GENERATED ALWAYS AS IDENTITY (MAXVALUE 600) PRIMARY KEY);
    CREATE TABLE people (name citext PRIMARY KEY, picture bytea, who text DEFAULT current_user);
    ALTER TABLE people ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON people USING (who = current_user);
    CREATE TABLE numbers (
        k float8 PRIMARY KEY, f float4, n numeric, day date, at timestamptz, span interval, j json
    );
    ALTER TABLE numbers REPLICA IDENTITY FULL;
    CREATE TABLE chapters (
        id int PRIMARY KEY, parent int REFERENCES chapters ON DELETE CASCADE,
        place int UNIQUE DEFERRABLE, code int, UNIQUE NULLS NOT DISTINCT (code)
    );
    CREATE SEQUENCE down INCREMENT -5 CACHE 20;
    CREATE TABLE downwards (id int PRIMARY KEY DEFAULT nextval('down'));
    CREATE TABLE empty (id int PRIMARY KEY);
    CREATE SEQUENCE receipt_numbers;
    CREATE FUNCTION next_receipt() RETURNS text LANGUAGE sql
        AS $$ SELECT 'R-' || nextval('receipt_numbers') $$;
    CREATE TABLE receipts (id text PRIMARY KEY DEFAULT next_receipt());
    CREATE TABLE tickets (id serial PRIMARY KEY, text text);
    CREATE TABLE visits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, ticket int);
    CREATE FUNCTION visit() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO visits (ticket) VALUES (new.id); RETURN NULL; END $$;
    CREATE TRIGGER visits AFTER INSERT ON tickets FOR EACH ROW EXECUTE FUNCTION visit();
    CREATE TABLE rooms (
        id int PRIMARY KEY, room int, booked tsrange,
        EXCLUDE USING gist (room WITH =, booked WITH &&)
    );
    CREATE VIEW open_tickets AS SELECT * FROM tickets;
    CREATE FUNCTION open_ticket() RETURNS trigger LANGUAGE plpgsql
        AS $$ BEGIN INSERT INTO tickets (text) VALUES (new.text); RETURN new; END $$;
    CREATE TRIGGER opens INSTEAD OF INSERT ON open_tickets
        FOR EACH ROW EXECUTE FUNCTION open_ticket();
    CREATE MATERIALIZED VIEW tickets_in_all AS SELECT count(*) FROM open_tickets;
"""
GRANTS = f"""
    GRANT ALL ON SCHEMA shop TO {ROLE};
    GRANT ALL ON ALL TABLES IN SCHEMA public, shop TO {ROLE};
    GRANT ALL ON ALL SEQUENCES IN SCHEMA public, shop TO {ROLE};
"""
ROWS = r"""
    INSERT INTO shop.items (a, b)
        SELECT n, 'a "b, (' || n || E'\\\n' FROM generate_series(1, 300) n;
    INSERT INTO "Order of {a}" ("select") SELECT n FROM generate_series(1, 300) n;
    INSERT INTO "50% off" SELECT FROM generate_series(1, 300);
    INSERT INTO people VALUES
        ('Ann', '\x00ff5c27', 'nobody'), ('bob', '', 'postman'), ('', NULL, '');
    INSERT INTO numbers VALUES
        ('NaN', 'NaN', 'NaN', 'infinity', '-infinity', 'infinity', '{"b":  1, "b": 2}'),
        ('-0', '-0', 0.10, '0044-03-15 BC', '0044-03-15 12:00+00 BC', '-1 year 2 days', NULL),
        ('Infinity', 1.1, '-Infinity', '5000000-01-01', '0001-01-01 BC', NULL, '[]'),
        (0.1::float8 + 0.2, 3.4e38, 1e-20, NULL, NULL, NULL, '1'),
        (5e-324, 1e-45, 1.000, NULL, NULL, NULL, 'null');
    INSERT INTO chapters SELECT n, nullif(n / 2, 0), n, n FROM generate_series(1, 100) n;
    INSERT INTO downwards SELECT FROM generate_series(1, 100);
    INSERT INTO receipts SELECT FROM generate_series(1, 100);
    INSERT INTO tickets (id) SELECT n FROM generate_series(1, 3000) n;
    SELECT setval('tickets_id_seq', 3001, false);
    INSERT INTO rooms SELECT n, n, '[2020-01-01,2020-02-01)' FROM generate_series(1, 100) n;
"""
WRITES = """
    INSERT INTO shop.items (a, b, size) VALUES ({n}, 'new', (1, 'old'));
    UPDATE shop.items SET a = a + 1000, price = {n} WHERE a = {n} + 5;
    DELETE FROM shop.items WHERE a = {n} + 20;
    INSERT INTO "Order of {a}" ("per%cent") VALUES ({n});
    INSERT INTO "50% off" DEFAULT VALUES;
    INSERT INTO people VALUES ('new {n}', '{n}');
    UPDATE people SET name = upper(name) WHERE name = 'BOB';
    INSERT INTO numbers (k, j) VALUES (1e{n}, '[{n}]');
    UPDATE numbers SET f = -f, n = {n} WHERE k IN ('NaN', 0);
    UPDATE chapters SET place = place + 1;
    INSERT INTO chapters VALUES (1000 + {n}, 1, 5000 + 100 * {n});
    UPDATE chapters SET code = 1000 + {n} WHERE code IS NULL;
    DELETE FROM chapters WHERE id = 50 + {n};
    INSERT INTO downwards DEFAULT VALUES;
    INSERT INTO receipts DEFAULT VALUES;
    INSERT INTO tickets DEFAULT VALUES;
    UPDATE rooms SET room = room + 1000 WHERE id < 50;
"""
COUNT = "SELECT count(*) FROM {table}"


class Writer:
    """The app, on the side that takes the writes."""

    def __init__(self) -> None:
        self._writes = 0

    async def write(self, side: Side) -> None:
        self._writes += 1
        app = await asyncpg.connect(side.app_url)
        await app.execute(WRITES.replace("{n}", str(self._writes)))
        await app.close()


@pytest.fixture
async def odd(move: Move) -> Move:
    odd = dataclasses.replace(move, tables=TABLES)
    for side in (odd.old, odd.new):
        await side.run(SCHEMA + GRANTS)
    await odd.old.run(ROWS)
    return odd


async def test_odd_tables_move_there_and_back_and_each_next_value_is_new(
    odd: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROWS_AT_ONCE", 90)
    writer = Writer()

    async def both_are_equal(way: Way) -> None:
        assert await are_equal(odd, way)
        rows = [await way.source.value(COUNT.format(table=table)) for table in TABLES]
        assert f"hold the same {sum(rows):,} rows" in await compare(odd)

    assert await complaints(odd) == []
    await copy(odd)
    for _ in range(2):
        await cut(odd)
        assert await odd.new.value("SELECT * FROM tickets_in_all") >= 3000
        for _ in range(2):
            await writer.write(odd.new)
        await both_are_equal(odd.back)
        await back(odd)
        await writer.write(odd.old)
        await both_are_equal(odd.there)
