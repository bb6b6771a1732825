# Rung's file: advancing to another stage may change it.
import asyncio

import asyncpg

from app.infra.own_writes.log_position import WRITTEN_UP_TO, Position, reachable
from app.infra.reads import Reader

# Its snapshot is older than the position that it reads, and younger than the one read before. Its
# xmax is behind the last transaction that has ended: the newest may run, and have begun to commit.
HOW_FAR = f"""
    SELECT timeline_id, lsn,
        pg_snapshot_xmin(seen) = pg_snapshot_xmax(seen)
        AND age(pg_snapshot_xmax(seen)::xid) = 0 AS nobody_writes
    FROM ({WRITTEN_UP_TO}) AS here, pg_current_snapshot() AS seen
"""  # noqa: S608  # nothing from outside


class Sampler:
    """Up to where a read that begins now shows all that was committed; where itself excluded.

    A commit is in the log before anybody can see it, so the log's end proves nothing about the
    commit that stands there. But when nobody writes, what stood at the end of the log the last
    time can be seen: else what was kept after a write would be of no use until the next write.
    """

    def __init__(self) -> None:
        self._last = Position(0, 0)
        self._running: asyncio.Task[Position | None] | None = None

    async def sample(self, read: Reader) -> Position | None:
        """None if the server is no primary just now. Who ask together share the answer."""
        if self._running is None:
            self._running = asyncio.create_task(self._ask(read))
        return await asyncio.shield(self._running)

    async def _ask(self, read: Reader) -> Position | None:
        try:
            (found,) = await read.fetch(HOW_FAR)
        except asyncpg.ObjectNotInPrerequisiteStateError:
            return None
        finally:
            self._running = None
        last, self._last = self._last, reachable(found["timeline_id"], found["lsn"])
        if not found["nobody_writes"]:
            return self._last
        return max(self._last, Position(last.timeline, last.lsn + 1))
