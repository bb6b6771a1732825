# Rung's file: advancing to another stage may change it.
"""Positions in Postgres' write-ahead log (WAL), and the primary's current position."""

import re
import time
from collections import deque
from typing import NamedTuple

# The WAL has pages of 8 KiB, each with a header. At the start of a page, a primary reports the
# position after the header, and a replica the one before it. Both mean the same position.
PAGE = 8192
PAGE_HEADERS = (24, 40)

_POSITION = """
    SELECT (pg_split_walfile_name(pg_walfile_name(lsn))).timeline_id, (lsn - '0/0')::bigint AS lsn
    FROM {}() AS lsn
"""
WRITTEN_UP_TO = _POSITION.format("pg_current_wal_insert_lsn")

# Replicas receive only what is flushed. While the primary is idle, the entries of a read that
# failed stay unflushed for up to 15 s.
FLUSHED_UP_TO = _POSITION.format("pg_current_wal_flush_lsn")

ENCODED = rb"([0-9a-f]{9})\.([0-9a-f]{16})"
_ENCODED = re.compile(ENCODED)
ENCODED_LENGTH = 9 + 1 + 16
ENCODED_IN_LUA = f"^{'[0-9a-f]' * 9}%.{'[0-9a-f]' * 16}$"  # for Redis' scripts


# The common database's name in `positions`. A module's own database has the module's name.
MAIN = "main"


class Position(NamedTuple):
    """Greater positions are written later.

    A promoted replica begins a new timeline: its positions are greater than all before.
    """

    timeline: int
    lsn: int


# Greater than any other: a client that must see it reads from the primary.
NOT_KNOWN = Position(2**32, 0)


def reachable(timeline: int, lsn: int) -> Position:
    """Parses Postgres' answer: a replica at this position has replayed everything before it."""
    offset = lsn % PAGE
    return Position(timeline, lsn - offset if offset in PAGE_HEADERS else lsn)


def encoded(position: Position) -> bytes:
    """A fixed length: the bytes sort in the order of the positions, also in Redis."""
    return b"%09x.%016x" % position


def decoded(text: str) -> Position | None:
    found = _ENCODED.fullmatch(text.encode())
    return reachable(int(found[1], 16), int(found[2], 16)) if found else None


class PrimaryLog:
    """How far the primary's log is flushed, and since when: one sample a poll."""

    def __init__(self) -> None:
        self.timeline = 0
        self._timeline_found_at = 0
        self._samples: deque[tuple[float, int]] = deque(maxlen=1000)

    def add_sample(self, position: Position) -> None:
        if position.timeline != self.timeline:
            self._samples.clear()
            self.timeline, self._timeline_found_at = position
        # A flush may stop at the end of a page, within an entry that nobody can replay yet.
        lsn = position.lsn
        if not self._samples or (lsn > self._samples[-1][1] and lsn % PAGE):
            self._samples.append((time.monotonic(), lsn))

    def lsn_to_reach(self, position: Position) -> int | None:
        """None if only the primary can show the position.

        A position of an older timeline was reached where the new timeline was first seen.
        """
        if position.timeline > self.timeline:
            return None
        return position.lsn if position.timeline == self.timeline else self._timeline_found_at

    def bytes_behind(self, lsn: int) -> int:
        return max(self._samples[-1][1] - lsn, 0) if self._samples else 0

    def seconds_behind(self, lsn: int, last_commit: float) -> float:
        """The seconds since the log passed `lsn`. An idle primary leaves no replica behind.

        If the log passed it before the oldest sample, this process does not know when. Then the age
        in seconds of the replica's last commit counts.
        """
        passed_at = next((at for at, reached in self._samples if reached > lsn), None)
        if passed_at is None:
            return 0.0
        seconds = time.monotonic() - passed_at
        return max(seconds, last_commit) if lsn < self._samples[0][1] else seconds
