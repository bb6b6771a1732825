# Rung's file: advancing to another stage may change it.
from pathlib import Path

import pytest

from dev.budget_redis import max_clients, needs
from dev.capacity import Capacity


def test_every_process_counts_at_each_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "queue.conf").write_text("# few\nmaxclients 100\n")
    four = Capacity(
        copies=4, workers=2, during_a_deploy=2, direct=3, redis={"queue": 8, "other": 8}
    )

    queue, other = needs(four)

    assert (queue.sum, queue.needed, queue.limit) == ("16 x 8", 128, 100)
    assert "set maxclients 128 in deploy/queue.conf" in queue.remedy
    assert "give the app's pool 6, " in queue.remedy
    assert (other.needed, other.limit) == (128, 10_000)


def test_what_a_server_takes_is_what_its_file_says() -> None:
    assert max_clients("maxclients 500\n") == 500
    assert max_clients("# maxclients 500\n") == 10_000
