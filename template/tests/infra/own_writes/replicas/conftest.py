# Rung's file: advancing to another stage may change it.
"""A primary, and a replica 5 s behind that the app reads from."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.infra.own_writes.replicas.pair import delayed, pair
from tests.infra.replicas.replication import Cluster, Server


@pytest.fixture(scope="module")
def servers() -> Iterator[Cluster]:
    with pair("silent") as servers:
        yield servers


@pytest.fixture(autouse=True)
def replica(servers: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))
    return delayed(servers, monkeypatch)
