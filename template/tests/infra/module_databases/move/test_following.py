# Rung's file: advancing to another stage may change it.
"""Copies that follow a move: no client notices the cut, its way back, or a lost old database."""

from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from app.infra.module_databases.move import fence
from app.infra.module_databases.move.copying import abort, copy
from app.infra.module_databases.move.cutting import back, cut, own
from app.infra.module_databases.move.sides import Move
from dev.pytest_plugin import Services
from tests.infra.conftest import Serve
from tests.infra.module_databases.move.conftest import ROLE, Urls, are_equal
from tests.infra.module_databases.move.copies import Copies, post_office, set_environment, used

pytestmark = pytest.mark.slow

TEXTS = "SELECT id, text FROM parcels WHERE text NOT LIKE 'x%'"
TEXT = "SELECT text FROM parcels WHERE id = $1"
AWAY = """
    REVOKE CONNECT ON DATABASE "{name}" FROM PUBLIC;
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE usename = '{role}' AND datname = '{name}';
"""


@pytest.fixture(autouse=True)
def following(services: Services, urls: Urls, monkeypatch: pytest.MonkeyPatch) -> None:
    set_environment(monkeypatch, urls)


async def test_there_and_back_while_copies_roll_no_client_notices(move: Move) -> None:
    async with used() as copies:
        await copies.some_more()
        await copy(move)
        await copies.some_more()
        for step in (cut, back, cut):
            assert "takes the writes of parcels. The fence held writers up for" in await step(move)
            await copies.roll()
            await copies.some_more()
    assert copies.faults == []
    assert await are_equal(move, move.back)
    async with used() as later:
        assert "has its own database" in await own(move)
        await later.some_more()
    assert later.faults == []
    sent = copies.sent | later.sent
    assert {row["id"]: row["text"] for row in await move.new.rows(TEXTS)} == sent


async def test_a_move_that_is_given_up_leaves_the_module_where_it_was(move: Move) -> None:
    async with used() as copies:
        await copy(move)
        await cut(move)
        await copies.some_more()
        await back(move)
        await abort(move)
        await copies.some_more()
    assert copies.faults == []
    assert {row["id"]: row["text"] for row in await move.old.rows(TEXTS)} == copies.sent


async def test_a_copy_that_does_not_follow_answers_503_to_writes(
    move: Move, urls: Urls, monkeypatch: pytest.MonkeyPatch
) -> None:
    parcel = f"/parcels/{uuid4()}?text=x"
    async with AsyncExitStack() as stack:
        copies = Copies(stack)
        follower, other = await copies.start(), await copies.start()
        set_environment(monkeypatch, urls, follow=False)
        early = await copies.start()
        monkeypatch.delenv("MODULE_PARCELS_DATABASE_URL")
        monkeypatch.delenv("MODULE_PARCELS_DATABASE_FOLLOW")
        for name in ("CONNECT_SECONDS", "POOL_WAIT_SECONDS", "STATEMENT_SECONDS"):
            monkeypatch.delenv(f"MODULE_PARCELS_DATABASE_{name}")
        late = await copies.start()
        await copy(move)
        assert [(await one.put(parcel)).status_code for one in (follower, early, late)] == [
            200,
            503,
            200,
        ]
        await cut(move)
        assert [(await one.put(parcel)).status_code for one in (follower, early, late)] == [
            200,
            200,
            503,
        ]
        assert (await late.put(parcel)).headers["Retry-After"] == "1"
        # The one that has not written since finds the move by its read.
        await follower.put(f"{parcel}y")
        assert (await other.get(parcel)).json() == "xy"


async def test_a_transaction_after_a_crossing_asks_again(
    move: Move, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CACHE_URL", "redis://127.0.0.1:1")  # with a cache, positions are noted
    await copy(move)
    app, parcel = post_office(), uuid4()
    app.state.meanwhile = lambda: cut(move)
    async with serve(app) as client:
        before = await client.put(f"/parcels/{parcel}?text=x")
        assert (await client.post(f"/parcels/{parcel}")).status_code == 200
        after = await client.put(f"/parcels/{uuid4()}?text=x")
    assert await move.new.value(TEXT, parcel) == "after"
    # A position of the new server would mean nothing to the common database's replicas and cache.
    assert ("read-after" in before.headers, "read-after" in after.headers) == (True, False)


async def test_after_the_cut_the_old_database_may_be_away(move: Move, serve: Serve) -> None:
    await copy(move)
    name = await move.old.value("SELECT current_database()")
    path = f"/parcels/{uuid4()}"
    async with serve(post_office()) as client:
        await client.put(f"{path}?text=x")
        await cut(move)
        await client.put(f"{path}?text=then")
        await move.old.run(AWAY.format(name=name, role=ROLE))
        async with serve(post_office()) as begun_later:
            for one in (client, begun_later):
                assert (await one.get(path)).json() == "then"
                assert (await one.put(f"{path}?text=then")).status_code == 200
        await back(move)
        # Its home is away, and the new one takes no writes.
        assert (await client.put(f"{path}?text=lost")).status_code == 503
        assert (await client.get(path)).status_code == 503


async def test_when_neither_side_takes_writes_a_writer_waits_for_a_limited_time(
    move: Move, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MODULE_PARCELS_DATABASE_POOL_WAIT_SECONDS", "0.3")
    await copy(move)
    path = f"/parcels/{uuid4()}"
    async with serve(post_office()) as client:
        await client.put(f"{path}?text=x")
        await fence.close(move.old, move)
        assert (await client.put(f"{path}?text=then")).status_code == 503
        for _ in range(3):
            assert (await client.get(path)).status_code == 200
