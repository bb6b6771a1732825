# Rung's file: advancing to another stage may change it.
"""The connection budget of each Redis."""

from pathlib import Path

import pytest

from dev.cache.budget_redis import POOLS, max_clients, need, needs
from dev.pooling.capacity import Capacity


def test_every_process_needs_connections_to_each_server() -> None:
    eight = Capacity(copies=2, workers=2, during_a_deploy=2, direct=3)

    assert [one.needed for one in needs(eight)] == [8 * pool for pool in POOLS.values()]


def test_a_server_that_takes_too_few_connections_is_named_with_its_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "queue.conf").write_text("# few\nmaxclients 100\n")

    queue = need(16, "queue", 8)

    assert (queue.sum, queue.needed, queue.limit) == ("16 x 8", 128, 100)
    assert queue.remedy == "set maxclients 128 in deploy/queue.conf"


def test_the_limit_of_a_server_is_read_from_its_file() -> None:
    assert max_clients("maxclients 500\n") == 500
    assert max_clients("# maxclients 500\n") == 10_000
