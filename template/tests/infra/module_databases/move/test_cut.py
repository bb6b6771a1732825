# Rung's file: advancing to another stage may change it.
"""The cut and its way back while clients write, killed at each statement."""

import asyncio
import os
import signal

import asyncpg
import pytest
from sqlalchemy import text

from app.infra.database import WriteSession
from app.infra.module_databases.move import comparing, copying, cutting, fence, sides
from app.infra.module_databases.move.__main__ import status
from app.infra.module_databases.move.comparing import compare
from app.infra.module_databases.move.copying import abort, copy
from app.infra.module_databases.move.cutting import back, cut, own
from app.infra.module_databases.move.sequences import advance
from app.infra.module_databases.move.sides import Move, Refused, Way, connected
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve, bare_app
from tests.infra.module_databases.move.conftest import (
    LEFT,
    ROLE,
    Urls,
    are_equal,
    as_the_app,
    moving,
)
from tests.infra.module_databases.move.copies import set_environment, used
from tests.infra.module_databases.move.senders import Senders, killed_at_each_statement

pytestmark = pytest.mark.slow

TEXTS = "SELECT id, text FROM parcels WHERE text NOT LIKE 'x%'"
TAMPER = """
    SET session_replication_role = replica;
    DELETE FROM parcels WHERE id = (SELECT id FROM parcels WHERE text LIKE 'x%' LIMIT 1);
    UPDATE stamps SET parcel = NULL WHERE id IN (1, 2);
    INSERT INTO stamps (id) VALUES (1000000);
"""


async def test_there_and_back_killed_at_each_statement_nothing_is_lost(
    move: Move, urls: Urls, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_environment(monkeypatch, urls)
    await copy(move)
    senders = Senders(urls)
    async with used(number=2, clients=2) as copies, asyncio.TaskGroup() as sending:
        for _ in range(3):
            sending.create_task(senders.send())
        await senders.until(50)
        assert await killed_at_each_statement(urls, cut) > 30
        assert not await fence.is_closed(move.new, move)
        await senders.until(senders.writes + 50)
        assert "hold the same" in await compare(move)
        assert await killed_at_each_statement(urls, back) > 10
        assert not await fence.is_closed(move.old, move)
        await senders.until(senders.writes + 50)
        senders.stop()

    assert copies.faults == []
    assert await are_equal(move, move.there)
    sent = senders.sent | copies.sent
    for side in (move.old, move.new):
        assert {row["id"]: row["text"] for row in await side.rows(TEXTS)} == sent
    await abort(move)
    for side in (move.old, move.new):
        assert await side.rows(LEFT) == []


async def test_a_transaction_that_does_not_end_prevents_the_cut_and_no_write(
    move: Move, urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sides, "TRIES", 2)
    await copy(move)
    app = await asyncpg.connect(as_the_app(urls[0]))
    async with app.transaction():
        await app.execute("INSERT INTO stamps DEFAULT VALUES")
        with pytest.raises(
            Refused, match=r"was busy in each of 2 tries \(.*lock timeout\), so nothing"
        ):
            await cut(move)
        await app.execute("INSERT INTO stamps DEFAULT VALUES")

    assert "The new database takes the writes of parcels. The fence held" in await cut(move)
    with pytest.raises(asyncpg.LockNotAvailableError):
        await app.execute("INSERT INTO stamps DEFAULT VALUES")
    await app.close()
    assert await are_equal(move, move.back)
    assert (await status(move)).startswith(
        "parcels: the new database takes the writes, and the old one is "
    )
    assert (await cut(move)).startswith("The new database takes the writes of parcels already.")
    with pytest.raises(Refused, match="has moved: the old tables take no writes"):
        await abort(move)


async def test_a_new_database_that_does_not_replay_prevents_the_cut(
    move: Move, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "FOLLOWS_WITHIN_TRIES", 1)
    monkeypatch.setattr(copying, "LONGEST_MEASURED", 0.5)
    with pytest.raises(Refused, match="No copy of parcels runs"):
        await cut(move)
    await copy(move)
    await move.back.begin(copy_data=False)
    async with connected(move.new.admin_url) as other, other.transaction():
        # The replay waits for the end of this transaction.
        await other.execute("SET session_replication_role = replica")
        await other.execute("INSERT INTO stamps VALUES (1000000)")
        await move.old.run("INSERT INTO stamps VALUES (1000000)")
        with pytest.raises(Refused, match="The new database does not follow The old database"):
            await cut(move)
        # The same when it begins to be behind after it was asked.
        monkeypatch.setattr(cutting, "_refuse_if_behind", lambda _: asyncio.sleep(0))
        monkeypatch.setattr(cutting, "REPLAY_SECONDS", 0.1)
        monkeypatch.setattr(sides, "TRIES", 1)
        with pytest.raises(Refused, match="The new database did not replay within"):
            await cut(move)
        monkeypatch.setattr(sides, "SLOT_SECONDS", 1)
        await move.back.end()
        with pytest.raises(Refused, match="The new database has a transaction that is open for mo"):
            await cut(move)
        assert not await fence.is_closed(move.old, move)
        await other.execute("DELETE FROM stamps WHERE id = 1000000")
    assert await are_equal(move, move.there)


@pytest.mark.parametrize(
    ("side", "statement", "undo", "line"),
    [
        (
            "new",
            f"ALTER ROLE {ROLE} SET default_transaction_isolation = 'serializable'",
            f"ALTER ROLE {ROLE} RESET ALL",
            "The new database: the app's transactions are serializable, as its URL, its role or",
        ),
        (
            "old",
            f"ALTER ROLE {ROLE} SUPERUSER",
            f"ALTER ROLE {ROLE} NOSUPERUSER",
            f"The old database: the app's role {ROLE} is a superuser: a fence might not stop it",
        ),
        (
            "old",
            "ALTER TABLE parcels ADD COLUMN weight int",
            "ALTER TABLE parcels DROP COLUMN weight",
            "parcels differs: 'weight integer' is only in the old database. Run the migrations",
        ),
        (
            "old",
            "CREATE TABLE letters (id int PRIMARY KEY, parcel uuid REFERENCES parcels (id))",
            "DROP TABLE letters",
            "letters: the foreign key letters_parcel_fkey leads to parcels, across the border.",
        ),
    ],
)
async def test_an_obstacle_that_arose_after_the_copy_prevents_the_cut_before_any_fence(
    move: Move, side: str, statement: str, undo: str, line: str
) -> None:
    await copy(move)
    await getattr(move, side).run(statement)
    try:
        with pytest.raises(Refused) as refused:
            await cut(move)
        assert not await fence.is_closed(move.old, move)
        assert not await move.back.is_subscribed()
    finally:
        await getattr(move, side).run(undo)

    assert str(refused.value).startswith(line)
    assert "\n" not in str(refused.value)
    assert (await cut(move)).startswith("The new database takes the writes of parcels.")


async def test_a_cut_that_was_killed_ends_although_an_obstacle_arose(move: Move) -> None:
    await copy(move)
    await fence.close(move.old, move)
    await move.new.run(f"ALTER ROLE {ROLE} SET default_transaction_isolation = 'serializable'")
    try:
        assert (await cut(move)).startswith("The new database takes the writes of parcels.")
    finally:
        await move.new.run(f"ALTER ROLE {ROLE} RESET ALL")


async def test_a_server_that_hangs_behind_the_fence_ends_the_command_in_words(urls: Urls) -> None:
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        async with moving(urls) as move:
            await copy(move)
            backend = await move.new.value("SELECT pg_backend_pid()")

            async def hang_and_advance(way: Way) -> None:
                patch.setattr(sides, "CONNECT_SECONDS", 0.5)  # for the end of the connection
                os.kill(backend, signal.SIGSTOP)
                await advance(way)

            patch.setattr(cutting, "advance", hang_and_advance)
            patch.setattr(cutting, "HAND_OVER_SECONDS", 0.5)
            # Without a limit, the command ends only after this.
            goes_on = loop.call_later(60, os.kill, backend, signal.SIGCONT)
            with pytest.raises(Refused, match="does not answer, and neither database takes writes"):
                await cut(move)
        assert loop.time() < goes_on.when()
        goes_on.cancel()
        os.kill(backend, signal.SIGCONT)
    async with moving(urls) as move:
        assert (await cut(move)).startswith("The new database takes the writes of parcels.")
        await own(move)


async def test_own_ends_replication_and_the_old_tables_take_no_writes(move: Move) -> None:
    with pytest.raises(Refused, match="parcels still lives in the old database"):
        await own(move)
    await copy(move)
    assert (await status(move)).startswith("parcels: 2 of 2 tables copied, 0.")
    await fence.close(move.old, move)
    assert "neither database takes writes. Run cut or back again" in await status(move)
    await cut(move)

    assert "make module-drop NAME=parcels " in await own(move)
    left = {row["slot_name"] for row in await move.new.rows(LEFT)}
    assert left == {"move_fence", "move_parcels_fence"}  # copies that still follow ask it
    assert await fence.is_closed(move.old, move)
    assert "has its own database, and there is no way back" in await status(move)
    await move.new.run("INSERT INTO stamps DEFAULT VALUES")
    with pytest.raises(Refused, match="parcels has no way back"):
        await back(move)

    await move.old.run("DROP TABLE stamps, parcels")
    assert "has its own database, and there is no way back" in await status(move)
    assert "nothing of the move is left" in await own(move)
    assert "has its own database, and there is no way back" in await status(move)
    for side in (move.old, move.new):
        assert await side.rows(LEFT) == []


@pytest.mark.parametrize("rows_at_once", [500, 1_000_000])
async def test_compare_finds_each_row_that_differs_while_clients_write(
    move: Move, urls: Urls, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparing, "ROWS_AT_ONCE", rows_at_once)
    await copy(move)
    senders = Senders(urls)
    async with asyncio.TaskGroup() as sending:
        sending.create_task(senders.send())
        assert "both databases hold the same" in await compare(move)
        async with connected(urls[1]) as other:
            await other.execute(TAMPER)
        with pytest.raises(Refused) as refused:
            await compare(move)
        senders.stop()

    parcels, stamps = str(refused.value).splitlines()
    assert parcels.startswith("parcels: 1 rows differ: (")
    assert stamps == "stamps: 3 rows differ: (1), (1000000), (2)"


async def test_the_app_answers_503_to_a_write_that_the_fence_refuses(
    services: Services, serve: Serve
) -> None:
    app = bare_app()

    @app.post("/parcels")
    async def send(write: WriteSession) -> None:
        await write.execute(text("INSERT INTO parcels VALUES (1)"))

    async with moving((services.database_url, services.database_url)) as move:
        for table in move.tables:
            await move.old.run(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        async with serve(app) as client:
            await fence.close(move.old, move)
            refused = await client.post("/parcels")
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            await fence.open_again(move.old, move)
            assert (await client.post("/parcels")).status_code == 200
