# Rung's file: advancing to another stage may change it.
"""WAL positions: how they are read, compared and encoded."""

import time
from collections import deque
from typing import NamedTuple

# The log has pages of 8 KiB, each with a header. Where a page begins lies behind its header for who
# writes and before it for who has replayed, and both mean the same.
PAGE = 8192
PAGE_HEADERS = (24, 40)

_POSITION = """
    SELECT (pg_split_walfile_name(pg_walfile_name(lsn))).timeline_id, (lsn - '0/0')::bigint AS lsn
    FROM {}() AS lsn
"""
WHERE_THE_PRIMARY_IS = _POSITION.format("pg_current_wal_insert_lsn")

# Replicas are sent what is flushed. What a read leaves there that then fails, nobody flushes for
# up to 15 s while the primary is idle.
WHAT_IS_FLUSHED = _POSITION.format("pg_current_wal_flush_lsn")


_ENCODED = "{:09x}.{:016x}"
ENCODED_LENGTH = len(_ENCODED.format(0, 0))


class Position(NamedTuple):
    """A place in Postgres' write-ahead log: what is written later has a greater one.

    A promoted replica begins a new timeline, and its positions are greater than all before.
    """

    timeline: int
    lsn: int


# Greater than any: who must see it reads from the primary.
NOT_KNOWN = Position(2**32, 0)


def written_up_to(timeline: int, lsn: int) -> Position:
    """From what WHERE_THE_PRIMARY_IS or WHAT_IS_FLUSHED has found."""
    offset = lsn % PAGE
    return Position(timeline, lsn - offset if offset in PAGE_HEADERS else lsn)


def encoded(position: Position) -> str:
    """Of fixed length, so that texts compare as positions do: here, in Postgres and in Redis."""
    return _ENCODED.format(*position)


def decoded(text: str) -> Position:
    timeline, lsn = text.split(".")
    return Position(int(timeline, 16), int(lsn, 16))


class PrimaryLog:
    """How far the primary's log is flushed, and when: one sample a poll."""

    def __init__(self) -> None:
        self.timeline = 0
        self._timeline_found_at = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=1000)

    def learn(self, position: Position) -> None:
        if position.timeline != self.timeline:
            self._samples.clear()
            self.timeline, self._timeline_found_at = position
        # At the end of a page the flush may have stopped within an entry, which nobody replays yet.
        lsn = position.lsn
        if not self._samples or (lsn > self._samples[-1][1] and lsn % PAGE):
            self._samples.append((time.monotonic(), lsn))

    def lsn_to_reach(self, position: Position) -> int | None:
        """None if only the primary can know. What a failover has left of an older timeline came
        before the place where the new one was found."""
        if position.timeline > self.timeline:
            return None
        return position.lsn if position.timeline == self.timeline else self._timeline_found_at

    def bytes_behind(self, lsn: int) -> int:
        return max(self._samples[-1][1] - lsn, 0) if self._samples else 0

    def seconds_behind(self, lsn: int) -> float:
        """Since when the log is further than that; an idle primary leaves nobody behind."""
        passed_at = next((at for at, reached in self._samples if reached > lsn), None)
        return 0.0 if passed_at is None else time.monotonic() - passed_at
