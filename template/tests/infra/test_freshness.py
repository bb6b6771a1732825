# Rung's file: advancing to another stage may change it.
from typing import Any

import pytest

from app.infra.freshness import max_stale
from app.infra.reads import Reader


async def test_a_query_that_may_be_stale_is_simply_called() -> None:
    calls = []

    @max_stale(minutes=5)
    async def greeting(read: Reader, name: str) -> str:
        calls.append(name)
        return f"Hello {name}"

    nowhere: Any = None
    read = Reader(nowhere, patience=1)
    assert [await greeting(read, "Ada"), await greeting(read, "Ada")] == ["Hello Ada"] * 2
    assert calls == ["Ada", "Ada"]


def test_a_promise_without_a_time_is_refused() -> None:
    with pytest.raises(ValueError, match="minutes"):
        max_stale()
