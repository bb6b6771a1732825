# Rung's file: advancing to another stage may change it.
"""`make slow-queries` reports each database, and says which one a statement is in."""

import asyncio
import json
from collections.abc import Iterator

import asyncpg
import pytest

from app.infra.module_databases import slow_queries
from dev.pytest_plugin import Databases

pytestmark = pytest.mark.slow

COMMON, OWN = "SELECT $1::int AS users", "SELECT $1::int AS parcels"


def counted(url: str, statement: str) -> None:
    async def run() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        await connection.fetch(statement, 1)
        await connection.close()

    asyncio.run(run())


@pytest.fixture
def own(
    empty_database: str, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    counted(empty_database, COMMON)
    with databases.created() as url:
        counted(url, OWN)
        monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", url)
        monkeypatch.setattr("sys.argv", ["slow_queries"])
        yield url


def test_each_statement_is_listed_under_its_database(
    own: str, capsys: pytest.CaptureFixture[str]
) -> None:
    slow_queries.main()

    heading = f"=== The database of parcels, {own.rpartition('/')[2]}\n"
    common, _, parcels = capsys.readouterr().out.partition(heading)
    assert (COMMON in common, OWN in common) == (True, False)
    assert (COMMON in parcels, OWN in parcels) == (False, True)


def test_a_database_that_is_away_hides_no_other(
    own: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE_LETTERS_DATABASE_URL", "postgresql://app@127.0.0.1:1/letters")
    monkeypatch.setattr("sys.argv", ["slow_queries", "--json"])
    with pytest.raises(SystemExit, match=r"^Database of letters: Postgres: .*\n.*$"):
        slow_queries.main()

    found = json.loads(capsys.readouterr().out)
    assert [one["sql"] for one in found["statements"]] == [COMMON]
    assert list(found["modules"]) == ["parcels"]
    assert [one["sql"] for one in found["modules"]["parcels"]["statements"]] == [OWN]
