# Rung's file: advancing to another stage may change it.
"""WAL positions across timelines."""

import asyncpg
import pytest

from app.infra.own_writes.client import Client
from app.infra.own_writes.commits import position_now
from app.infra.own_writes.log_position import NOT_KNOWN, Position, PrimaryLog, reachable


class EndingConnection:
    """Postgres closes it as a statement begins."""

    async def fetchval(self, *_: object) -> object:
        raise asyncpg.InternalClientError("cannot switch to state 11")


async def test_a_connection_that_ends_after_the_commit_leaves_the_position_unknown() -> None:
    assert await position_now(EndingConnection()) == NOT_KNOWN


def test_the_start_of_an_empty_page_is_the_end_of_the_page_before() -> None:
    assert reachable(1, 5 * 8192 + 24) == Position(1, 5 * 8192)
    assert reachable(1, 2**24 + 40) == Position(1, 2**24)
    assert reachable(1, 5 * 8192 + 64) == Position(1, 5 * 8192 + 64)


def test_a_later_timeline_is_greater() -> None:
    assert Position(1, 900) < Position(2, 100) < NOT_KNOWN


def test_a_position_of_an_older_timeline_is_reached_where_the_new_one_began() -> None:
    primary = PrimaryLog()
    primary.add_sample(Position(1, 500))
    primary.add_sample(Position(2, 300))
    primary.add_sample(Position(2, 400))

    assert primary.lsn_to_reach(Position(1, 900)) == 300
    assert primary.lsn_to_reach(Position(2, 350)) == 350
    assert primary.lsn_to_reach(Position(3, 10)) is None
    assert primary.lsn_to_reach(NOT_KNOWN) is None


def test_a_replica_that_has_the_whole_log_is_not_behind_however_old_its_end_is() -> None:
    primary = PrimaryLog()
    assert primary.seconds_behind(0, 7) == 0
    primary.add_sample(Position(1, 500))

    assert (primary.seconds_behind(500, 7), primary.bytes_behind(500)) == (0, 0)
    assert primary.seconds_behind(499, 0) > 0
    assert primary.bytes_behind(499) == 1


def test_a_flush_that_stopped_at_the_end_of_a_page_does_not_count_as_lag() -> None:
    primary = PrimaryLog()
    primary.add_sample(Position(1, 500))
    primary.add_sample(Position(1, 8192))

    assert (primary.seconds_behind(500, 7), primary.bytes_behind(500)) == (0, 0)
    primary.add_sample(Position(1, 9000))
    assert 0 < primary.seconds_behind(500, 3600) < 3600


def test_a_replica_behind_the_oldest_sample_is_as_old_as_its_last_commit() -> None:
    primary = PrimaryLog()
    primary.add_sample(Position(1, 500))

    assert primary.seconds_behind(499, 3600) == 3600


@pytest.mark.parametrize(
    ("positions", "min_position"),
    [
        ([Position(1, 7), Position(1, 5)], Position(1, 7)),
        ([Position(1, 7), NOT_KNOWN], NOT_KNOWN),
        ([NOT_KNOWN, Position(1, 7)], Position(1, 7)),
    ],
)
def test_after_a_second_write_the_later_position_is_enough(
    positions: list[Position], min_position: Position
) -> None:
    main = Client().main
    for position in positions:
        main.wrote(position)

    assert main.position == min_position
