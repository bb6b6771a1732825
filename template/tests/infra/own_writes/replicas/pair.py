# Rung's file: advancing to another stage may change it.
"""A streaming pair for the diaries, whose replica applies what it receives 5 s later."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from dev.pytest_plugin import RUN
from tests.infra.conftest import until
from tests.infra.own_writes.silent_clients import DIARIES
from tests.infra.replicas.replication import SESSIONS, Cluster, Server, cluster

DELAY = "5s"


@contextmanager
def pair(name: str) -> Iterator[Cluster]:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "alone")
    with cluster(f"rung-{name}-{RUN}-{worker}") as servers:
        for statement in (SESSIONS, DIARIES, "CREATE EXTENSION pg_stat_statements"):
            asyncio.run(servers.primary.run(statement))
        yield servers


def delayed(servers: Cluster, monkeypatch: pytest.MonkeyPatch) -> Server:
    replica = servers.replica()
    asyncio.run(hold_back(replica, DELAY))
    monkeypatch.setenv("DATABASE_URL", servers.primary.url)
    monkeypatch.setenv("DATABASE_REPLICA_URLS", replica.url)
    monkeypatch.setenv("DATABASE_REPLICA_POLL_SECONDS", "0.05")
    monkeypatch.setenv("DATABASE_REPLICA_MAX_LAG_SECONDS", "60")
    monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
    return replica


async def hold_back(replica: Server, delay: str) -> None:
    await replica.run(f"ALTER SYSTEM SET recovery_min_apply_delay = '{delay}'")
    await replica.run("SELECT pg_reload_conf()")


async def until_replica_is_read(copies: list[AsyncClient], server: Server) -> None:
    """Waits until each copy reads from the replica, which takes a moment after its start."""
    for copy in copies:
        async with asyncio.timeout(300):
            before = await calls(server, "diaries")
            while await calls(server, "diaries") == before:
                await copy.get("/diaries/0")


async def caught_up(app: FastAPI, primary: Server, replica: Server) -> None:
    """Makes the replica replay at once, and waits until the app knows it."""
    await hold_back(replica, "0")
    now = "SELECT (pg_logical_emit_message(true, 'rung', 'now') - '0/0')::bigint"
    position = int(str(await primary.run(now)))
    [known] = app.state.database.replicas
    await until(lambda: known.lsn > position)


async def calls(server: Server, table: str) -> int:
    """How many statements about the table the server has run."""
    count = f"""SELECT coalesce(sum(calls), 0)::bigint FROM pg_stat_statements
        WHERE query LIKE '%FROM {table}%'"""  # noqa: S608  # a test's own words
    return int(str(await server.run(count)))
