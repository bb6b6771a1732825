# Rung's file: advancing to another stage may change it.
"""The lint for SQL that does not survive a pooler."""

import pytest

from dev.pooling.lint import find


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ('text("SET statement_timeout = 5")', "SET LOCAL"),
        ('text("set search_path to a, b")', "SET LOCAL"),
        ('sql = "SET ROLE admin"', "SET LOCAL"),
        ('sql = f"SET {name} = 5"', "SET LOCAL"),
        ('sql = "SET " + name + " = 5"', "SET LOCAL"),
        ('text("SELECT 1; SET TIME ZONE utc")', "SET LOCAL"),
        ('text("/* why */ SET a.b TO 1")', "SET LOCAL"),
        ('text("RESET ALL")', "SET LOCAL"),
        ("text(\"SELECT set_config('a.b', :value, false)\")", "true"),
        ("select(func.set_config('a.b', value, False))", "true"),
        ('text("LISTEN orders")', "DATABASE_DIRECT_URL, and end this line with `# direct`"),
        ('await connection.add_listener("orders", heard)', "# direct"),
        ('text("SELECT pg_advisory_lock(1)")', "pg_advisory_xact_lock"),
        ("select(func.pg_try_advisory_lock(1))", "pg_advisory_xact_lock"),
        ('text("CREATE TEMP TABLE a (id int)")', "WITH"),
        ('text("create temporary table a as select 1")', "WITH"),
        ('text("CREATE TEMP TABLE a (id int) ON COMMIT DELETE ROWS")', "ON COMMIT DROP"),
        ('text("SELECT id INTO TEMP a FROM b")', "WITH"),
        ('text("DECLARE c CURSOR WITH HOLD FOR SELECT 1")', "page by page"),
        ('text("PREPARE a AS SELECT 1")', "driver"),
        ('text("DEALLOCATE ALL")', "pooler"),
    ],
)
def test_state_that_outlives_its_transaction_is_found(line: str, instead: str) -> None:
    [found] = find(f"'''SET is only spoken of here.'''\n# SET a = 1\n{line}\n")

    assert found.line == 3
    assert instead in found.problem


@pytest.mark.parametrize(
    "line",
    [
        "text(\"SET LOCAL statement_timeout = '1s'\")",
        'text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")',
        'text("SET CONSTRAINTS ALL DEFERRED")',
        'text("UPDATE products SET stock = 1")',
        'text("INSERT INTO a VALUES (1) ON CONFLICT DO UPDATE " "SET id = 2")',
        'text("SELECT pg_advisory_xact_lock(1)")',
        "select(func.pg_advisory_xact_lock(1))",
        "text(\"SELECT set_config('a.b', :value, true)\")",
        "select(func.set_config('a.b', value, True))",
        "text(\"NOTIFY orders, 'one'\")",
        'text("create temp table a (like b) on commit drop")',
        'sql = "CREATE TEMPORARY TABLE a ON COMMIT DROP AS SELECT 1"',
        "text(\"PREPARE TRANSACTION 'a'\")",
        'text("DECLARE c CURSOR FOR SELECT 1")',
        'log.info("Set the price to 5")',
        'raise ValueError("set minutes = 5")',
        "await connection.execution_options(isolation_level='SERIALIZABLE')",
        'connection.execute("LISTEN orders")  # direct',
    ],
)
def test_state_that_ends_with_its_transaction_is_allowed(line: str) -> None:
    assert find(line) == []
