# Rung's file: advancing to another stage may change it.
"""A module with its own Postgres, and without: its sessions, settings, readiness and metrics."""

import socket
from collections.abc import Iterator
from typing import Annotated

import asyncpg
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from app.infra import process_log
from app.infra.database import ReadSession, WriteSession
from app.infra.environment import EnvironmentIncomplete
from app.infra.module_databases.sessions import module_sessions
from app.infra.reads import Reader
from app.infra.telemetry import sources
from dev.pytest_plugin import Databases, Services
from tests.infra.conftest import Serve, bare_app
from tests.infra.module_databases.conftest import set_database

parcels = module_sessions("parcels")
ParcelsRead = Annotated[Reader, Depends(parcels.read)]
ParcelsWrite = Annotated[AsyncSession, Depends(parcels.write, scope="function")]

letters = module_sessions("letters")
LettersWrite = Annotated[AsyncSession, Depends(letters.write, scope="function")]

WHERE = "SELECT current_database() || ' ' || pg_backend_pid() || ' ' || pg_current_xact_id()"


@pytest.fixture
def second(
    second_server: Databases, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """URL of a database on another server, set as that of the module "parcels"."""
    with second_server.created() as url:
        set_database(monkeypatch, "PARCELS", url)
        yield url


@pytest.fixture
def third(second_server: Databases, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same for "letters"."""
    with second_server.created() as url:
        set_database(monkeypatch, "LETTERS", url)
        yield url


def post_office() -> FastAPI:
    """Uses the environment as it is."""
    app = bare_app()

    @app.post("/common")
    async def common(write: WriteSession) -> None:
        await send(write, "common")

    @app.post("/parcels")
    async def parcel(write: ParcelsWrite, fail: bool = False) -> None:
        await send(write, "parcel")
        if fail:
            raise ConnectionAbortedError

    @app.post("/both")
    async def both(write: WriteSession, parcels: ParcelsWrite) -> None:
        await send(write, "common")
        await send(parcels, "parcel")

    @app.post("/modules")
    async def modules(parcels: ParcelsWrite, letters: LettersWrite) -> None:
        await send(parcels, "parcel")
        await send(letters, "letter")

    @app.post("/only-parcels")
    async def only_parcels(write: WriteSession, parcels: ParcelsWrite) -> None:
        await send(parcels, "parcel")

    @app.post("/counted-parcels")
    async def counted(write: WriteSession, read: ParcelsRead) -> int:
        return len(await names(read))

    @app.get("/where")
    async def where(write: WriteSession, parcels: ParcelsWrite) -> list[str | None]:
        return [await one.scalar(text(WHERE)) for one in (write, parcels)]

    @app.get("/parcels")
    async def sent(read: ParcelsRead) -> list[str]:
        return await names(read)

    @app.get("/common")
    async def sent_in_common(read: ReadSession) -> list[str]:
        return await names(read)

    return app


async def send(write: AsyncSession, name: str) -> None:
    await write.execute(text("INSERT INTO sent VALUES (:name)"), {"name": name})


async def names(read: Reader) -> list[str]:
    return [row["name"] for row in await read.fetch("SELECT name FROM sent ORDER BY name")]


async def create_table(*urls: str) -> None:
    for url in urls:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE TABLE sent (name text)")
        await connection.close()


async def test_without_its_own_database_a_module_shares_the_transaction(
    services: Services, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", "")  # as an unset variable of a Compose file
    await create_table(services.database_url)

    async with serve(post_office()) as client:
        common, module = (await client.get("/where")).json()
        assert common == module

        with services.statements.counted() as plain:
            await client.post("/common")
        with services.statements.counted() as modules:
            await client.post("/parcels")
        assert modules == plain
        assert len(modules) <= 2  # the INSERT, and the position of its commit

        assert (await client.post("/parcels?fail=true")).status_code == 500
        await client.post("/both")
        assert (await client.get("/parcels")).json() == ["common", "common", "parcel", "parcel"]


async def test_with_its_own_database_a_module_writes_and_reads_there(
    services: Services, serve: Serve, second: str
) -> None:
    await create_table(services.database_url, second)

    async with serve(post_office()) as client:
        await client.post("/common")
        with services.statements.counted() as counted:
            await client.post("/parcels")
        assert counted == ["INSERT INTO sent VALUES ($1)"]
        assert (await client.get("/parcels")).json() == ["parcel"]
        assert (await client.get("/common")).json() == ["common"]

        assert (await client.post("/parcels?fail=true")).status_code == 500
        # A session that sends nothing takes no part.
        await client.post("/only-parcels")
        assert (await client.get("/parcels")).json() == ["parcel", "parcel"]


@pytest.mark.parametrize("path", ["/both", "/modules"])
async def test_a_request_cannot_commit_in_two_databases(
    services: Services,
    serve: Serve,
    second: str,
    third: str,
    path: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    urls = services.database_url, second, third
    await create_table(*urls)

    async with serve(post_office()) as client:
        assert (await client.post(path)).status_code == 500
    assert "They cannot commit together" in capsys.readouterr().out

    for url in urls:
        connection = await asyncpg.connect(url)
        assert await connection.fetchval("SELECT count(*) FROM sent") == 0
        await connection.close()


async def test_the_own_databases_are_ready_and_counted(
    serve: Serve, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = post_office()
    async with serve(app) as client:
        assert (await client.get("/ready")).json() == {"status": "ok", "unavailable": []}
        most = sources.of_pools(app)[1]
        pools = {point[1]["db.client.connection.pool.name"] for point in most.read()}
        assert {"reads", "writes", "parcels reads", "parcels writes"} <= pools
        logged = await process_log.watch(app.state.pools, seconds=0.1)
        assert logged["pools"].keys() == pools

    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # it does not listen
        away = f"postgresql://app:x@127.0.0.1:{nobody.getsockname()[1]}/app"
        monkeypatch.setenv("MODULE_PARCELS_DATABASE_URL", away)
        async with serve(post_office()) as client:
            answer = await client.get("/ready")
            assert answer.status_code == 503
            assert answer.json()["unavailable"] == ["database of parcels"]
            with capture_logs() as lines:
                assert (await client.post("/parcels")).status_code == 503
                assert (await client.post("/counted-parcels")).status_code == 503
            said = [line["server"] for line in lines if line["event"] == "Postgres takes no writes"]
            assert said == ["database of parcels"]


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        (
            "MODULE_PARSELS_DATABASE_URL",
            "postgresql://app:hunter2@db/app",
            'MODULE_PARSELS_DATABASE_URL: no code calls module_sessions("parsels"). Known: ',
        ),
        (
            "MODULE_PARCELS_DATABASE_REED_URL",
            "postgresql://app:hunter2@db/app",
            "MODULE_PARCELS_DATABASE_REED_URL: no such setting. After MODULE_PARCELS_DATABASE_",
        ),
        ("MODULE_PARCELS_DATABASE_READ_POOL", "4", "  MODULE_PARCELS_DATABASE_URL: Field required"),
        (
            "MODULE_PARCELS_DATABASE_URL",
            "mysql://app:hunter2@db/app",
            "  MODULE_PARCELS_DATABASE_URL: ",
        ),
    ],
)
@pytest.mark.usefixtures("services")
def test_a_wrong_variable_is_named_and_its_value_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(EnvironmentIncomplete) as stopped:
        bare_app()

    assert said in str(stopped.value)
    assert "hunter2" not in str(stopped.value)
