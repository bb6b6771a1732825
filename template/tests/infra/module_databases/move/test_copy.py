# Rung's file: advancing to another stage may change it.
"""The copy of a module's tables, followed, killed, and taken back, while clients write."""

import asyncio
import re

import asyncpg
import pytest

from app.infra.module_databases.move.copying import abort, copy, progress
from app.infra.module_databases.move.sides import Move, Refused, connected
from tests.infra.module_databases.move.conftest import TABLES, Urls, as_the_app, becomes
from tests.infra.module_databases.move.senders import Senders, killed_at_each_statement

pytestmark = pytest.mark.slow

HASHES = "SELECT md5(string_agg(row::text, ',' ORDER BY row::text)) FROM {} AS row"
LEFT = """
    SELECT slot_name FROM pg_replication_slots
    UNION ALL SELECT pubname FROM pg_publication
    UNION ALL SELECT subname FROM pg_subscription
    UNION ALL SELECT tgname FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'move%'
"""


async def are_equal(move: Move) -> bool:
    """When nobody writes."""
    position = await move.old.position()
    await becomes(lambda: move.there.has_replayed(position))
    for table in TABLES:
        old, new = [await side.value(HASHES.format(table)) for side in (move.old, move.new)]
        if old != new:
            return False
    return True


async def test_a_copy_killed_at_each_statement_has_every_write(move: Move, urls: Urls) -> None:
    senders = Senders(urls)
    async with asyncio.TaskGroup() as sending:
        for _ in range(3):
            sending.create_task(senders.send())
        kills = await killed_at_each_statement(urls, copy)
        await senders.until(senders.writes + 50)
        senders.stop()

    assert kills > 20
    assert await are_equal(move)
    assert await move.new.value("SELECT count(*) FROM parcels") == 2000 + len(senders.sent)
    assert (await copy(move)).startswith("parcels: the new database has all tables, and each")


async def test_the_new_tables_take_no_writes_but_those_of_the_old(move: Move) -> None:
    await copy(move)

    app = await asyncpg.connect(as_the_app(move.new.url))
    for write in ("INSERT INTO stamps DEFAULT VALUES", "TRUNCATE stamps", "DELETE FROM parcels"):
        with pytest.raises(asyncpg.LockNotAvailableError, match="The tables of parcels take no"):
            await app.execute(write)
    await app.close()
    await move.old.run("INSERT INTO stamps DEFAULT VALUES")
    assert await are_equal(move)


async def test_the_status_tells_rows_and_lag(
    move: Move, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Refused, match=r"No copy of parcels runs\. Begin it with: copy"):
        await progress(move)
    await move.old.run("ANALYZE parcels, stamps")
    await copy(move)

    shown = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"parcels: 2 of 2 tables copied, 0\.\d MB and \d\.\d\d s behind", shown[-1])
    # A lock there holds up what is replayed.
    async with move.new.connection.transaction():
        await move.new.run("LOCK TABLE stamps")
        await move.old.run("INSERT INTO stamps DEFAULT VALUES")
        now = await progress(move)
    assert now.line().endswith("more than 2 s behind")
    assert (now.rows, now.of_rows) == (4000, 4000)


async def test_abort_leaves_nothing_and_the_copy_can_begin_again(move: Move, urls: Urls) -> None:
    senders = Senders(urls)
    async with asyncio.TaskGroup() as sending:
        sending.create_task(senders.send())
        await copy(move)
        kills = await killed_at_each_statement(urls, abort)
        senders.stop()

    assert kills > 5
    for side in (move.old, move.new):
        assert await side.rows(LEFT) == []
    assert await move.old.value("SELECT count(*) FROM parcels") == 2000 + len(senders.sent)
    with pytest.raises(Refused, match="has rows in the new database already"):
        await copy(move)
    said = await abort(move)  # again
    await move.new.run(said.rpartition("there: ")[2])
    await copy(move)
    assert await are_equal(move)


async def test_a_copy_that_is_not_finished_can_be_aborted(move: Move) -> None:
    async with connected(move.new.url) as other, other.transaction():
        await other.execute("LOCK TABLE stamps IN SHARE MODE")
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
