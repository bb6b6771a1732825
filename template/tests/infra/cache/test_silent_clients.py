# Rung's file: advancing to another stage may change it.
"""A client with a token sees its own writes through the cache, at two copies of the app."""

from uuid import uuid4

import pytest

from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.conftest import execute_sql
from tests.infra.own_writes.silent_clients import (
    DIARIES,
    copies_of,
    diary_app,
    mistakes_of_many,
    stale_reads_with_saved_cookies,
)


async def test_a_client_that_echoes_nothing_gets_no_older_cached_answer(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_PREFIX", uuid4().hex)
    monkeypatch.setenv("CACHE_OPERATION_SECONDS", "5")
    await execute_sql(services.database_url, DIARIES)
    with valkey.running("cache") as server:
        monkeypatch.setenv("CACHE_URL", server.url)
        async with copies_of(first := diary_app(), diary_app()) as copies:
            assert await mistakes_of_many(copies) == {}
            assert await stale_reads_with_saved_cookies(copies[0]) == 0
            assert first.state.cache.stats.hits > 0
