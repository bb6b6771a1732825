# Rung's file: advancing to another stage may change it.
"""docs/guide/unavailable.md, which an operator reads when the log says `unavailable`."""

import re
from pathlib import Path

import asyncpg

PAGE = Path("docs/guide/unavailable.md").read_text("utf-8")


async def test_postgres_runs_each_statement_of_the_page(empty_database: str) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    connection = await asyncpg.connect(empty_database)
    for block in blocks:
        await connection.execute(block)
    await connection.close()

    assert len(blocks) == 2
