# Rung's file: advancing to another stage may change it.
"""`make budget` counts the connections to the own database of a module."""

import pytest

from dev.module_databases import budget_modules
from dev.pooling.capacity import Capacity
from dev.postgres import REPOSITORY

CAPACITY = Capacity(copies=50, workers=2, during_a_deploy=2, direct=5)


def test_the_connections_of_a_module_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    assert budget_modules.needs(CAPACITY) == []

    monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", "postgresql://db/parcels")
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_WRITE_POOL", "3")
    [need] = budget_modules.needs(CAPACITY)

    assert (need.what, need.sum) == ("Postgres of parcels", "200 x (16 + 3 + 1) + 5")
    assert need.needed == 4005 > need.limit
    assert "set MODULE_PARCELS_DATABASE_POOLED=true" in need.remedy

    monkeypatch.setenv(
        "MODULE_PARCELS_DATABASE_REPLICA_URLS", "postgresql://one/,postgresql://two/"
    )
    primary, replica = budget_modules.needs(CAPACITY)
    assert (primary.what, primary.sum) == ("Postgres of parcels", "200 x (16 + 3 + 2) + 5")
    assert (replica.what, replica.sum) == ("each replica of parcels", "200 x (16 + 1) + 5")
