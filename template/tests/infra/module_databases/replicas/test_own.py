# Rung's file: advancing to another stage may change it.
"""`make dev`, `make stack` and `make load`: the replica has the modules' own databases too."""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from dev import postgres
from dev.module_databases import own
from dev.module_databases.replicas.beside import beside
from dev.replicas import replica
from tests.infra.replicas.replication import Server

VARIABLE = own.variable("parcels")


@pytest.mark.slow
def test_the_replica_of_the_common_database_has_that_of_a_module_too() -> None:
    server = postgres.for_load()
    with server as common, own.beside("parcels", {"DATABASE_URL": common}) as found:
        environment = {"DATABASE_URL": common, **found}
        with replica.for_own(common) as usual, beside(VARIABLE, environment) as url:
            assert url == f"{usual}_parcels"
            assert urlsplit(url).port != urlsplit(found[VARIABLE]).port
            here = Path()  # these two are not stopped
            asyncio.run(Server(here, found[VARIABLE]).run("CREATE TABLE parcels (id int)"))
            asyncio.run(Server(here, url).becomes("to_regclass('parcels') IS NOT NULL"))
            assert asyncio.run(Server(here, url).said_yes("pg_is_in_recovery()"))
            for elsewhere in ("", "postgresql://app@other.example/parcels"):
                with beside(VARIABLE, environment | {VARIABLE: elsewhere}) as none:
                    assert none == ""


@pytest.mark.parametrize("module", ["", "postgresql://app@other.example/parcels"])
def test_beside_another_server_a_module_has_no_replica(module: str) -> None:
    environment = {"DATABASE_URL": "postgresql://app@db.example/app", VARIABLE: module}
    with beside(VARIABLE, environment) as url:
        assert url == ""
