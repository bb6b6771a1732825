# Rung's file: advancing to another stage may change it.
import re
import time
from typing import NamedTuple, Self

from app.infra.own_writes.log_position import Position

_POSITION = "{:09x}.{:016x}"
POSITION_LENGTH = len(_POSITION.format(0, 0))
_SPELLED = re.compile(rb"[0-9a-f]{9}\.[0-9a-f]{16}")


def spelled(position: Position) -> bytes:
    """Of the same length always, so that they compare as the positions do: here and in Redis."""
    return _POSITION.format(*position).encode()


class Entry(NamedTuple):
    """An answer as it is kept: what it shows, when to read it anew, and its JSON.

    It shows all that was committed before `as_of`, which was the log's position before it was read.
    At `as_of` itself a commit may stand that nobody could see yet.
    """

    as_of: bytes  # spelled
    due: int  # milliseconds since 1970
    body: bytes

    @classmethod
    def parse(cls, raw: bytes | None) -> Self | None:
        """None if it is not one of ours."""
        if raw is None:
            return None
        try:
            as_of, due, body = raw.split(b" ", 2)
            entry = cls(as_of, int(due), body)
        except ValueError:
            return None
        return entry if _SPELLED.fullmatch(as_of) else None

    def __bytes__(self) -> bytes:
        return b"%b %d %b" % self

    def shows(self, must_see: Position | None) -> bool:
        return self.body != b"" and (must_see is None or spelled(must_see) < self.as_of)

    def is_due(self) -> bool:
        return time.time() * 1000 >= self.due


def forgotten(position: Position) -> Entry:
    """Takes the place of an answer, and lets only those be kept that show the position."""
    return Entry(spelled(Position(position.timeline, position.lsn + 1)), 0, b"")
