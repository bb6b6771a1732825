# Rung's file: advancing to another stage may change it.
import time
from typing import NamedTuple, Self

from app.infra.log_position import Position

# Of the same length always, so that they compare as the positions do, in Redis as well.
_POSITION = "{:09x}.{:016x}"
POSITION_LENGTH = len(_POSITION.format(0, 0))


class Entry(NamedTuple):
    """An answer as it is kept: what it shows, when to read it anew, and its JSON.

    It shows all that was committed before `as_of`, which was the log's position before it was read.
    At `as_of` itself a commit may stand that nobody could see yet.
    """

    as_of: Position
    due: int  # milliseconds since 1970
    body: bytes

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """None if it is not one of ours."""
        try:
            position, due, body = raw.split(b" ", 2)
            timeline, lsn = position.split(b".")
            return cls(Position(int(timeline, 16), int(lsn, 16)), int(due), body)
        except ValueError:
            return None

    def __bytes__(self) -> bytes:
        return f"{_POSITION.format(*self.as_of)} {self.due} ".encode() + self.body

    def shows(self, must_see: Position | None) -> bool:
        return self.body != b"" and (must_see is None or must_see < self.as_of)

    def is_due(self) -> bool:
        return time.time() * 1000 >= self.due


def forgotten(position: Position) -> Entry:
    """Takes the place of an answer, and lets only those be kept that show the position."""
    return Entry(Position(position.timeline, position.lsn + 1), 0, b"")
