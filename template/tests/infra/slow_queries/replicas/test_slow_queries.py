# Rung's file: advancing to another stage may change it.
"""`make slow-queries` also asks each replica, because reads go there."""

import asyncio
from pathlib import Path

import pytest

from app.infra import environment
from app.infra.slow_queries.__main__ import ServerSettings, make_report
from tests.infra.replicas.replication import Server, cluster

pytestmark = pytest.mark.slow

VISITS = [
    "CREATE EXTENSION pg_stat_statements",
    "CREATE TABLE visits (id int PRIMARY KEY, guest int NOT NULL)",
    "INSERT INTO visits SELECT n, n / 100 FROM generate_series(1, 100000) AS n",
    "CREATE INDEX ix_visits_rest ON visits ((id % 1000))",
    "ANALYZE visits",
    "CREATE TABLE done ()",
]
BY_REST = "SELECT count(*) FROM visits WHERE id % 1000 = 7"
NEWEST = "SELECT id FROM visits WHERE guest = 5 ORDER BY id DESC LIMIT 1"


async def ask(server: Server, statement: str, times: int) -> None:
    for _ in range(times):
        await server.run(statement)


def test_a_statement_that_is_slow_on_a_replica_only_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(f"rung-slow-queries-{tmp_path.name}") as servers:
        primary, replica = servers.primary, servers.replica()
        for statement in VISITS:
            asyncio.run(primary.run(statement))
        asyncio.run(replica.becomes("to_regclass('done') IS NOT NULL"))
        monkeypatch.setenv("DATABASE_URL", primary.url)
        monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
        asyncio.run(ask(replica, BY_REST, 5))
        asyncio.run(ask(replica, NEWEST, 20))

        report = asyncio.run(make_report(environment.read(ServerSettings), 10))

    [there] = report.replicas
    assert there.problem is None
    assert there.server == f"127.0.0.1:{replica.port}"
    assert any("SELECT id FROM visits" in one.sql for one in there.statements)
    assert [scan.index for scan in there.filtering_scans] == ["visits_pkey"]
    assert not report.filtering_scans
    assert "ix_visits_rest" not in [unused.index for unused in report.unused_indexes]
    assert f"Statements on replica {there.server} by total time:" in report.as_text()
