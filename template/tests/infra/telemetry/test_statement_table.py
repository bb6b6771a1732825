# Rung's file: advancing to another stage may change it.
"""A span is named by the statement's own table, not by a subquery's."""

import pytest

from app.infra.telemetry.clients import table_of


@pytest.mark.parametrize(
    ("sql", "table"),
    [
        ("SELECT id FROM orders WHERE id = $1", "orders"),
        ("SELECT (SELECT count(*) FROM items WHERE id = $1) AS n FROM orders", "orders"),
        ("SELECT EXTRACT(year FROM at) FROM orders", "orders"),
        ("INSERT INTO orders SELECT * FROM items", "orders"),
        ("UPDATE ONLY orders SET n = (SELECT max(n) FROM items)", "orders"),
        ("SELECT n FROM (SELECT n FROM items) AS inner_items", "items"),
        ('SELECT id FROM "public.orders"', "public.orders"),
        ("SELECT ':-) FROM a', a IS DISTINCT FROM b /* FROM c */ FROM orders", "orders"),
        ("SELECT n FROM (SELECT (SELECT 1 FROM items) AS n FROM orders) AS page", "orders"),
        ("WITH old AS (DELETE FROM items RETURNING id) SELECT n FROM orders", "orders"),
        ("SELECT ((1) FROM orders", "orders"),
        ("BEGIN", None),
    ],
)
def test_a_statement_is_named_by_its_outer_table(sql: str, table: str | None) -> None:
    assert table_of(sql) == table
