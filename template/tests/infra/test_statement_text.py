# Rung's file: advancing to another stage may change it.
"""A long statement keeps its tables and conditions when it is shown in one line."""

import pytest

from app.infra.statement_text import shortened

COLUMNS = ", ".join(f"column_{number}" for number in range(10))
COUNTED = "(SELECT count(*) FROM items WHERE n = $1) AS how_many_of_these_there_are"


@pytest.mark.parametrize(
    ("sql", "line"),
    [
        ("SELECT id\n  FROM orders", "SELECT id FROM orders"),
        ("SELECT {columns} FROM orders WHERE id = $1", "SELECT … FROM orders WHERE id = $1"),
        ("SELECT {counted} FROM orders", "SELECT … FROM orders"),
        ("SELECT '{columns} FROM a' FROM orders", "SELECT … FROM orders"),
        ("UPDATE orders SET n = (SELECT {columns})", "UPDATE orders SET n = (SELECT column_0, c…"),
        ("SELECT 1;\x1b[31m", "SELECT 1; [31m"),
    ],
)
def test_a_statement_is_shown_in_one_line(sql: str, line: str) -> None:
    assert shortened(sql.format(columns=COLUMNS, counted=COUNTED), 42) == line
