# Rung's file: advancing to another stage may change it.
"""Postgres fails over to another server."""

import asyncio
import os
import sys
from collections import Counter

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import Unavailable
from tests.infra.conftest import Serve
from tests.infra.failing_over import name_of_two, notes_app, until_written, written

SECONDS = 7.0  # Two, and a pause of a busy machine.

# The connections that are open end as well.
ANOTHER_PASSWORD = """DO $$ BEGIN
    ALTER ROLE app PASSWORD 'another';
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
        AND backend_type = 'client backend';
END $$"""


@pytest.mark.slow
@pytest.mark.usefixtures("services")
async def test_writes_succeed_again_within_two_seconds_of_a_failover(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with name_of_two() as name:
        monkeypatch.setenv("DATABASE_URL", name.url)
        app = notes_app()
        async with serve(app) as client:
            before = await asyncio.gather(*(written(client) for _ in range(8)))
            await asyncio.gather(*(client.get("/notes") for _ in range(8)))
            assert set(before) == {name.old.port}

            with capture_logs() as lines:
                await asyncio.to_thread(name.old.demote)
                refused = await asyncio.gather(*(written(client) for _ in range(20)))
                with pytest.raises(Unavailable):  # /ready asks this
                    await app.state.database.check()
                reads = await asyncio.gather(*(client.get("/notes") for _ in range(8)))

                name.leads_to = name.new
                async with asyncio.timeout(SECONDS):
                    await until_written(client, name.new.port)

            after = await asyncio.gather(*(written(client) for _ in range(20)))
            assert (await client.get("/ready")).status_code == 200

    assert Counter(refused).keys() == {"refused: 503"}
    assert {answer.status_code for answer in reads} == {200}
    assert set(after) == {name.new.port}
    said = [line["event"] for line in lines if line["event"].startswith("Postgres")]
    assert said == ["Postgres takes no writes", "Postgres takes writes again"]


@pytest.mark.slow
@pytest.mark.usefixtures("services")
@pytest.mark.parametrize("reason", ["it is loading", "another password"])
async def test_a_server_that_refuses_logins_is_unavailable_and_never_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    async with name_of_two() as name:
        monkeypatch.setenv("DATABASE_URL", name.url)
        app = notes_app()
        async with serve(app) as client:
            assert await written(client) == name.old.port
            if reason == "it is loading":
                await asyncio.to_thread(name.old.lets_nobody_in)
            else:
                await name.old.run(ANOTHER_PASSWORD)

            writes = await asyncio.gather(*(written(client) for _ in range(20)))
            reads = await asyncio.gather(*(client.get("/notes") for _ in range(20)))
            with pytest.raises(Unavailable):
                await app.state.database.check()
            name.leads_to = name.new
            async with asyncio.timeout(SECONDS):
                await until_written(client, name.new.port)

    assert set(writes) == {"refused: 503"}
    assert {answer.status_code for answer in reads} == {503}


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "?target_session_attrs=read-write"])
async def test_a_url_that_names_several_servers_leads_to_the_primary(query: str) -> None:
    async with name_of_two() as name:
        await asyncio.to_thread(name.old.demote)
        both = f"127.0.0.1:{name.old.port},127.0.0.1:{name.new.port}"
        url = name.old.url.replace(f"127.0.0.1:{name.old.port}", both) + query
        alembic = [sys.executable, "-m", "alembic", "upgrade", "head"]
        migrating = await asyncio.create_subprocess_exec(
            *alembic, env={**os.environ, "DATABASE_URL": url}
        )
        assert await migrating.wait() == 0
        async with Database(DatabaseSettings.model_validate({"url": url})) as database:
            [(port,)] = await database.reader().fetch("SHOW port")
            assert int(port) == name.new.port
            async with database.transaction() as write:
                assert await write.scalar(text("SHOW port")) == port
            await database.check()
