# Rung's file: advancing to another stage may change it.
"""elsewhere(): a module's transaction crosses into another module's, in one database and in two."""

from collections.abc import AsyncGenerator, Iterator
from typing import Annotated

import asyncpg
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.infra.database import Database, WriteSession
from app.infra.module_databases.crossing import elsewhere
from app.infra.module_databases.sessions import TwoDatabases, module_sessions
from dev.pytest_plugin import Databases, Services
from tests.infra.conftest import Serve, bare_app
from tests.infra.module_databases.conftest import set_database

# The tables of rooms stay in the common database.
guests, rooms = module_sessions("guests"), module_sessions("rooms")
GuestsWrite = Annotated[AsyncSession, Depends(guests.write, scope="function")]

TABLES = "CREATE TABLE guests (name text); CREATE TABLE rooms (guest text)"


class NoRoom(Exception): ...


@pytest.fixture
def guests_database(
    second_server: Databases, services: Services, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    with second_server.created() as url:
        set_database(monkeypatch, "GUESTS", url)
        yield url


@pytest.fixture(params=[1, 2], ids=["one database", "two databases"])
def urls(services: Services, request: pytest.FixtureRequest) -> list[str]:
    if request.param == 1:
        return [services.database_url]
    return [services.database_url, request.getfixturevalue("guests_database")]


@pytest.fixture
async def hotel(urls: list[str]) -> AsyncGenerator[FastAPI]:
    for url in urls:
        connection = await asyncpg.connect(url)
        await connection.execute(TABLES)
        await connection.close()
    app = bare_app()
    async with app.router.lifespan_context(app):
        yield app


async def arrive(write: AsyncSession, name: str) -> None:
    await write.execute(text("INSERT INTO guests VALUES (:name)"), {"name": name})


async def take_room(write: AsyncSession, guest: str) -> None:
    await write.execute(text("INSERT INTO rooms VALUES (:guest)"), {"guest": guest})


async def all_of(app: FastAPI) -> tuple[list[str], list[str]]:
    found = [
        await guests.database(app).reader().fetch("SELECT name FROM guests ORDER BY name"),
        await rooms.database(app).reader().fetch("SELECT guest FROM rooms ORDER BY guest"),
    ]
    of_guests, of_rooms = [[record[0] for record in records] for records in found]
    return of_guests, of_rooms


async def test_a_crossing_writes_in_both_modules(hotel: FastAPI) -> None:
    async with guests.transaction(hotel) as write:
        await arrive(write, "ada")
        async with elsewhere(write, rooms) as theirs:
            await take_room(theirs, "ada")
        await arrive(write, "ada, in her room")

    assert await all_of(hotel) == (["ada", "ada, in her room"], ["ada"])


async def test_a_refusal_takes_back_the_other_module_only(hotel: FastAPI) -> None:
    async with guests.transaction(hotel) as write:
        await arrive(write, "ada")
        with pytest.raises(NoRoom):
            await _take(write, then=NoRoom())
        await arrive(write, "ada, without a room")

    assert await all_of(hotel) == (["ada", "ada, without a room"], [])


async def test_in_two_databases_the_part_before_a_crossing_is_committed_first(
    hotel: FastAPI,
) -> None:
    async def takes_and_fails() -> None:
        async with guests.transaction(hotel) as write:
            await arrive(write, "ada")
            await _take(write)
            raise NoRoom

    with pytest.raises(NoRoom):
        await takes_and_fails()

    is_one = guests.database(hotel) is rooms.database(hotel)
    assert await all_of(hotel) == (([], []) if is_one else (["ada"], ["ada"]))


async def test_one_connection_at_a_time(hotel: FastAPI) -> None:
    """Otherwise requests that each hold one and wait for another could block each other."""
    own, common = guests.database(hotel), rooms.database(hotel)
    async with guests.transaction(hotel) as write:
        await arrive(write, "ada")
        async with elsewhere(write, rooms) as theirs:
            await take_room(theirs, "ada")
            assert sum(_used(one) for one in {own, common}) == 1


def _used(database: Database) -> int:
    return database.pools()["writes"].used


async def test_a_crossing_that_looks_atomic_and_is_not_is_refused(hotel: FastAPI) -> None:
    async with guests.transaction(hotel) as write:
        async with write.begin_nested():
            await arrive(write, "in a savepoint")
            with pytest.raises(TwoDatabases, match="cannot run inside a savepoint"):
                await _take(write)
        async with elsewhere(write, rooms) as theirs:
            with pytest.raises(TwoDatabases, match="or another elsewhere"):
                await _take(theirs)
    async with hotel.state.database.transaction() as write:
        with pytest.raises(TwoDatabases, match="needs the session of a module"):
            await _take(write)

    assert await all_of(hotel) == (["in a savepoint"], [])


async def _take(write: AsyncSession, then: Exception | None = None) -> None:
    async with elsewhere(write, rooms) as theirs:
        await take_room(theirs, "ada")
        if then:
            raise then


@pytest.mark.parametrize("urls", [2], indirect=True)
async def test_the_callers_session_cannot_be_used_inside_a_crossing(hotel: FastAPI) -> None:
    async def uses_both() -> None:
        async with guests.transaction(hotel) as write, elsewhere(write, rooms) as theirs:
            await take_room(theirs, "ada")
            await arrive(write, "ada")

    with pytest.raises(TwoDatabases, match="used inside of its elsewhere"):
        await uses_both()

    assert await all_of(hotel) == ([], [])


@pytest.mark.usefixtures("guests_database")
async def test_a_request_crosses_with_one_session_only(services: Services, serve: Serve) -> None:
    connection = await asyncpg.connect(services.database_url)
    await connection.execute(TABLES)
    await connection.close()
    app = bare_app()

    @app.post("/with-another")
    async def with_another(common: WriteSession, write: GuestsWrite) -> str:
        await take_room(common, "grace")
        try:
            await _take(write)
        except TwoDatabases as refused:
            return str(refused)
        return ""

    @app.post("/alone")
    async def alone(write: GuestsWrite) -> None:
        await _take(write)

    async with serve(app) as client:
        refused = await client.post("/with-another")
        assert "another session of this request has a transaction" in refused.json()
        assert (await client.post("/alone")).status_code == 200
        found = await rooms.database(app).reader().fetch("SELECT guest FROM rooms ORDER BY guest")
        assert [record[0] for record in found] == ["ada", "grace"]
