# Rung's file: advancing to another stage may change it.
"""Postgres fails over behind the pooler, which keeps connections to the old server."""

import asyncio
from collections import Counter

import pytest
from structlog.testing import capture_logs

from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import Unavailable
from dev.pooling import pgbouncer
from tests.infra.conftest import Serve
from tests.infra.failing_over import name_of_two, notes_app, until_written, written

SECONDS = 7.0  # Two, and a pause of a busy machine.


@pytest.mark.slow
@pytest.mark.usefixtures("services", "installed")
async def test_writes_succeed_again_within_two_seconds_of_a_failover_behind_the_pooler(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with name_of_two() as name:
        with pgbouncer.running(name.old.url, by_port=name.port) as bouncer:
            monkeypatch.setenv("DATABASE_POOLED", "true")
            monkeypatch.setenv("DATABASE_URL", bouncer.url)
            monkeypatch.setenv("DATABASE_READ_URL", bouncer.read_url)
            monkeypatch.setenv("DATABASE_DIRECT_URL", name.url)
            if pgbouncer.keeps_statements():
                monkeypatch.setenv("DATABASE_STATEMENT_CACHE", "100")
            app = notes_app()
            async with serve(app) as client:
                before = await asyncio.gather(*(written(client) for _ in range(8)))
                assert set(before) == {name.old.port}

                with capture_logs() as lines:
                    await asyncio.to_thread(name.old.demote)
                    refused = await asyncio.gather(*(written(client) for _ in range(20)))
                    with pytest.raises(Unavailable):  # /ready asks this
                        await app.state.database.check()
                    await asyncio.sleep(1.2)  # connections to the old server are not new any more

                    name.leads_to = name.new
                    async with asyncio.timeout(SECONDS):
                        await until_written(client, name.new.port)

                after = await asyncio.gather(*(written(client) for _ in range(20)))
                assert (await client.get("/ready")).status_code == 200

    assert Counter(refused).keys() == {"refused: 503"}
    assert set(after) == {name.new.port}
    said = [line["event"] for line in lines if line["event"].startswith("Postgres")]
    assert said == ["Postgres takes no writes", "Postgres takes writes again"]


@pytest.mark.slow
async def test_a_replica_is_no_read_url_because_it_would_hide_a_clients_own_writes() -> None:
    async with name_of_two() as name:
        await asyncio.to_thread(name.old.demote)
        urls = {"url": name.new.url, "read_url": name.old.url}
        async with Database(DatabaseSettings.model_validate(urls)) as database:
            with pytest.raises(Unavailable, match="primary"):
                await database.reader().fetch("SELECT 1")
            with pytest.raises(Unavailable, match="primary"):
                await database.check()
