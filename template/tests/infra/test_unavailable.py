# Rung's file: advancing to another stage may change it.
"""docs/guide/unavailable.md, which an operator reads when the log says `unavailable`."""

import re
from pathlib import Path

import pytest
from pydantic import PostgresDsn

from app.infra.connections import DatabaseSettings, connect
from app.infra.failures import NotConnected
from dev import ports
from tests.infra.conftest import execute_sql

PAGE = Path("docs/guide/unavailable.md").read_text("utf-8")


def test_the_page_has_each_server_that_is_not_postgres() -> None:
    code = "".join(file.read_text("utf-8") for file in Path("app/infra").rglob("*.py"))
    reasons = set(re.findall(r'Unavailable\(\s*f?"([^"]+)', code))
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    listed = [named for row in rows for named in row.split("`")[1::2]]
    left = {reason for reason in reasons if not any(named in reason for named in listed)}

    assert len(reasons) > 5
    assert [reason for reason in left if not reason.startswith("Postgres")] == []


def test_the_page_has_each_check_of_ready() -> None:
    """The reason of a check that times out names no server: `no answer in time`."""
    code = "".join(file.read_text("utf-8") for file in Path("app/infra").rglob("*.py"))
    checks = re.findall(r'add_readiness_check\(\s*app, "([^"]+)"', code)
    assert [name for name in checks if f"`check` is `{name}`" not in PAGE] == []


def test_the_page_has_the_line_of_a_cache_that_does_not_answer() -> None:
    assert "`the cache: circuit breaker open`" in PAGE


async def test_the_page_has_the_reason_of_a_postgres_that_has_stopped() -> None:
    settings = DatabaseSettings(url=PostgresDsn(f"postgresql://a@127.0.0.1:{ports.unused()}/a"))
    with pytest.raises(NotConnected) as failed:
        await connect(settings, settings.url)
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    listed = [named for row in rows for named in row.split("`")[1::2]]
    # In the app, which runs on uvloop, it is `Connection refused`.
    assert [named for named in listed if named in str(failed.value)] == ["Connect call failed"]


async def test_postgres_runs_each_statement_of_the_page(empty_database: str) -> None:
    blocks = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    for block in blocks:
        await execute_sql(empty_database, block)

    assert len(blocks) == 2
