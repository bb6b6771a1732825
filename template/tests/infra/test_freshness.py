# Rung's file: advancing to another stage may change it.
"""@max_stale and .invalidate, with or without a cache."""

from typing import Any

import pytest

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.freshness import max_stale
from app.infra.reads import Reader


async def test_a_query_with_max_stale_is_called_like_any_other() -> None:
    calls = []

    @max_stale(minutes=5)
    async def greeting(read: Reader, name: str) -> str:
        calls.append(name)
        return f"Hello {name}"

    nowhere: Any = None
    read = Reader(nowhere, patience=1)
    assert [await greeting(read, "Ada"), await greeting(read, "Ada")] == ["Hello Ada"] * 2
    assert calls == ["Ada", "Ada"]


@pytest.mark.usefixtures("services")
async def test_invalidate_does_nothing_without_a_cache() -> None:
    @max_stale(minutes=5)
    async def greeting(read: Reader, name: str) -> str:
        return f"Hello {name}"

    async with Database(environment.read(DatabaseSettings)) as database:
        async with database.transaction() as write:
            greeting.invalidate(write, "Ada")
        assert await greeting(database.reader(), "Ada") == "Hello Ada"


def test_max_stale_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="minutes"):
        max_stale()
