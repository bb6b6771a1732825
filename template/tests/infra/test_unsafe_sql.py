# Rung's file: advancing to another stage may change it.
"""The lint of migrations names what harms a running service, and lets ordinary SQL pass."""

import pytest

from dev import unsafe_sql


def rules(sql: str) -> list[str]:
    return [rule for rule, _, _ in unsafe_sql.found(sql)]


@pytest.mark.parametrize(
    ("rule", "sql"),
    [
        ("changes-rows", "UPDATE items SET x = (SELECT y FROM b WHERE id = 7)"),
        ("changes-rows", "UPDATE items SET x = y FROM b WHERE b.id = 7"),
        ("changes-rows", "DELETE FROM items USING b WHERE b.id = 7"),
        ("changes-rows", "UPDATE items SET x = 1 WHERE id = 5 OR true"),
        ("changes-rows", "UPDATE items SET x = 1 WHERE id IN (SELECT id FROM b)"),
        ("changes-rows", "UPDATE items SET x = 1 WHERE items.version_num = 'a'"),
        ("changes-rows", "CREATE TABLE IF NOT EXISTS items (id int); UPDATE items SET x = 1"),
        ("changes-rows", "WITH a AS (SELECT 1 WHERE id = 7) UPDATE items SET x = 1"),
        ("changes-rows", "WITH a AS (UPDATE o SET x = (y) RETURNING id) SELECT 1 WHERE id = 7"),
        ("locks-the-table", "CREATE TABLE n7 (id int); TRUNCATE n7, items"),
        ("locks-the-table", "CREATE TABLE n7 (id int); LOCK TABLE ONLY n7, ONLY items"),
        ("locks-the-table", 'ALTER TABLE items ADD COLUMN "check" int CHECK ("check" > 0)'),
        (
            "locks-the-table",
            "CREATE MATERIALIZED VIEW IF NOT EXISTS mv AS SELECT 1; REFRESH MATERIALIZED VIEW mv",
        ),
        ("breaks-the-old-version", "CREATE TABLE n6 (id int); REVOKE ALL ON n6, items FROM x"),
        ("breaks-the-old-version", "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM app"),
        ("breaks-the-old-version", "REVOKE admin FROM app"),
        ("breaks-the-old-version", "ALTER FUNCTION f(text[], int) OWNER TO x"),
        ("changes-the-lock-timeout", "SET LOCAL lock_timeout = '4s'"),
        ("changes-the-lock-timeout", "SET lock_timeout = 0"),
        ("changes-the-lock-timeout", "SELECT set_config('lock_timeout', '0', false)"),
        ("changes-the-lock-timeout", "SET lock_timeout TO DEFAULT"),
        ("hides-statements", "DO $$ BEGIN IF true THEN CREATE INDEX i ON o (x); END IF; END $$"),
        ("hides-statements", "DO $$ BEGIN WITH a AS (SELECT 1) DELETE FROM items; END $$"),
        (
            "hides-statements",
            "CREATE FUNCTION fill() RETURNS void LANGUAGE sql AS 'UPDATE items SET x = 1';"
            "SELECT fill()",
        ),
        (
            "hides-statements",
            "CREATE OR REPLACE FUNCTION a.fill(n int) RETURNS SETOF int LANGUAGE sql AS '…';"
            "SELECT * FROM a.fill((1))",
        ),
        ("rewrites-the-table", "VACUUM (ANALYZE, FULL) items"),
    ],
)
def test_what_harms_a_running_service_is_named(rule: str, sql: str) -> None:
    assert rules(sql) == [rule]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE public.alembic_version SET version_num='b-2' "
        "WHERE public.alembic_version.version_num = 'a-1'",
        'DELETE FROM "my-app".shop_version WHERE "my-app".shop_version.version_num = \'a\'',
        "CREATE TABLE n6 (id int); REVOKE ALL ON n6 FROM PUBLIC; ALTER TABLE n6 OWNER TO x",
        "CREATE MATERIALIZED VIEW mv AS SELECT 1; REFRESH MATERIALIZED VIEW mv",
        "CREATE FUNCTION f(a text[]) RETURNS int SECURITY DEFINER LANGUAGE sql AS 'SELECT 1';"
        "ALTER FUNCTION f(text[]) OWNER TO x; REVOKE EXECUTE ON FUNCTION f(text[]) FROM PUBLIC",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1;"
        "REVOKE ALL ON FUNCTION f() FROM PUBLIC",
        "CREATE TABLE n7 (id int); TRUNCATE ONLY n7",
        "CREATE TYPE c AS ENUM ('a'); ALTER TYPE c OWNER TO x",
        'ALTER TABLE items ADD COLUMN "check" boolean',
        "ALTER TABLE items ADD COLUMN kind text DEFAULT 'CHECK'",
        "WITH x AS (SELECT 1) INSERT INTO items SELECT 1 ON CONFLICT (id) DO UPDATE SET x = 1",
        "WITH c AS (SELECT id FROM jobs FOR UPDATE SKIP LOCKED) SELECT id FROM c",
        "DO $$ BEGIN GRANT SELECT, UPDATE ON items TO app; END $$",
        "DO $$ BEGIN CREATE TRIGGER t BEFORE UPDATE ON o FOR EACH ROW EXECUTE FUNCTION f(); END $$",
        "SELECT pg_catalog.set_config('search_path', '', false)",
        "SELECT setval(pg_get_serial_sequence('items', 'id'), max(id)) FROM items",
        "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS '…';"
        "CREATE TRIGGER t BEFORE INSERT ON o FOR EACH ROW EXECUTE FUNCTION fill(); SELECT count(*)",
        "SET LOCAL lock_timeout = '1s'",
        "SET lock_timeout TO 500",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql BEGIN ATOMIC"
        " SELECT CASE WHEN true THEN 1 END; UPDATE items SET x = 1; END; SELECT 1",
        "UPDATE items SET x = (SELECT y FROM b LIMIT 1) WHERE id = 'a b' AND (x OR y) RETURNING x",
        'UPDATE "order" SET x = 1 WHERE "order"."id" IN (\'a b\', \'c d\')',
        "-- squawk-ignore changes-rows;\n\nUPDATE items SET x = 1",
    ],
)
def test_an_ordinary_migration_passes(sql: str) -> None:
    assert rules(sql) == []


def test_rules_of_one_statement_are_named_in_their_order() -> None:
    sql = "ALTER TABLE items SET LOGGED, ADD n int CHECK (n > 0), FORCE ROW LEVEL SECURITY"

    assert rules(sql) == ["rewrites-the-table", "locks-the-table", "breaks-the-old-version"]


def test_squawk_accepts_an_index_on_a_view_that_the_migration_makes() -> None:
    new, old = (f"CREATE UNIQUE INDEX ix_a ON {view} (a);" for view in ("new", "old"))

    lines = unsafe_sql.for_squawk(f"CREATE MATERIALIZED VIEW new AS SELECT 1 a;\n{new}\n{old}")

    assert lines.splitlines()[-3:] == [
        "-- squawk-ignore require-concurrent-index-creation",
        new,
        old,
    ]


def test_squawk_gets_a_comment_in_the_line_above_its_statement() -> None:
    sql = "-- squawk-ignore changes-rows, ban-drop-column;\n\nALTER TABLE items DROP COLUMN x;"

    assert "\n-- squawk-ignore ban-drop-column\nALTER TABLE" in unsafe_sql.for_squawk(sql)


def test_squawk_gets_a_comment_above_each_line_of_its_statement() -> None:
    sql = (
        "-- squawk-ignore prefer-timestamp-tz;\n\n-- squawk-ignore prefer-text-field;\n\n"
        "CREATE TABLE a (\n    x TEXT DEFAULT ';',\n    y TIMESTAMP\n);\n\nSELECT\n1;"
    )

    comment = "-- squawk-ignore prefer-timestamp-tz, prefer-text-field"
    assert unsafe_sql.for_squawk(sql).splitlines()[1:] == [
        comment,
        "CREATE TABLE a (",
        comment,
        "    x TEXT DEFAULT ';',",
        comment,
        "    y TIMESTAMP",
        comment,
        ");",
        "",
        "SELECT",
        "1;",
    ]
