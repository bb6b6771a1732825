# Rung's file: advancing to another stage may change it.
"""The copy of a module's tables, followed, killed, and taken back, while clients write."""

import asyncio
import re

import asyncpg
import pytest

from app.infra.module_databases.move import copying
from app.infra.module_databases.move.comparing import compare
from app.infra.module_databases.move.copying import abort, copy, progress
from app.infra.module_databases.move.sides import Move, Refused, connected
from tests.infra.module_databases.move.conftest import LEFT, Urls, are_equal, as_the_app, becomes
from tests.infra.module_databases.move.senders import Senders, killed_at_each_statement

pytestmark = pytest.mark.slow


async def test_a_copy_killed_at_each_statement_has_every_write(move: Move, urls: Urls) -> None:
    senders = Senders(urls)
    async with asyncio.TaskGroup() as sending:
        for _ in range(3):
            sending.create_task(senders.send())
        kills = await killed_at_each_statement(urls, copy, every=3)
        await senders.until(senders.writes + 50)
        senders.stop()

    assert kills > 7
    assert await are_equal(move, move.there)
    assert await move.new.value("SELECT count(*) FROM parcels") == 2000 + len(senders.sent)
    assert (await copy(move)).startswith("parcels: the new database has all tables, and each")


async def test_before_the_cut_only_replication_writes_to_the_new_tables(move: Move) -> None:
    await copy(move)

    app = await asyncpg.connect(as_the_app(move.new.admin_url))
    for write in ("INSERT INTO stamps DEFAULT VALUES", "TRUNCATE stamps", "DELETE FROM parcels"):
        with pytest.raises(asyncpg.LockNotAvailableError, match="The tables of parcels take no"):
            await app.execute(write)
    await app.close()
    await move.old.run("INSERT INTO stamps DEFAULT VALUES")
    assert await are_equal(move, move.there)


async def test_the_status_tells_rows_and_lag(
    move: Move, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "LONGEST_MEASURED", 1.0)
    with pytest.raises(Refused, match=r"No copy of parcels runs\. Begin it with: copy"):
        await progress(move)
    with pytest.raises(Refused, match="Nothing replicates parcels"):
        await compare(move)
    await move.old.run("ANALYZE parcels, stamps")
    await copy(move)

    shown = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"parcels: 2 of 2 tables copied, 0\.\d MB and \d\.\d\d s behind", shown[-1])
    # A lock there holds up what is replayed.
    async with move.new.connection.transaction():
        await move.new.run("LOCK TABLE stamps")
        await move.old.run("INSERT INTO stamps DEFAULT VALUES")
        now = await progress(move)
    assert now.line().endswith("more than 1 s behind")
    assert (now.rows, now.of_rows) == (4000, 4000)


async def test_abort_leaves_nothing_and_the_copy_can_begin_again(move: Move, urls: Urls) -> None:
    senders = Senders(urls)
    async with asyncio.TaskGroup() as sending:
        sending.create_task(senders.send())
        await copy(move)
        kills = await killed_at_each_statement(urls, abort, every=2)
        senders.stop()

    assert kills > 3
    for side in (move.old, move.new):
        assert await side.rows(LEFT) == []
    assert await move.old.value("SELECT count(*) FROM parcels") == 2000 + len(senders.sent)
    with pytest.raises(Refused, match="has rows in the new database"):
        await copy(move)
    said = await abort(move)  # again
    await move.new.run(said.rpartition("there: ")[2])
    await copy(move)
    assert await are_equal(move, move.there)


async def test_a_copy_that_is_not_finished_can_be_aborted(move: Move) -> None:
    async with connected(move.new.admin_url) as other, other.transaction():
        # The copy of the row with the same key waits for the end of this transaction.
        await other.execute("INSERT INTO stamps (id) VALUES (1)")
        await move.there.begin(copy_data=True)
        # Each table that is being copied has a slot more.
        await becomes(lambda: move.old.value("SELECT count(*) > 1 FROM pg_replication_slots"))
        assert (await progress(move)).ready < 2
        await move.there.end()

    await abort(move)
    for side in (move.old, move.new):
        assert await side.rows(LEFT) == []


async def test_a_slot_that_lost_its_wal_is_named(move: Move) -> None:
    await copy(move)
    await move.new.run(f"ALTER SUBSCRIPTION {move.there.name} DISABLE")
    await becomes(lambda: move.old.value("SELECT count(*) = 0 FROM pg_stat_replication"))
    await move.old.run("SELECT pg_drop_replication_slot($1)", move.there.name)

    with pytest.raises(Refused, match="has lost WAL that The new database still needs"):
        await copy(move)
    await abort(move)
    assert await move.new.rows(LEFT) == []
