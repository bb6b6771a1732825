# Rung's file: advancing to another stage may change it.
"""Samples the WAL position before a read, which the read then certainly shows."""

import asyncio

import asyncpg

from app.infra.own_writes.log_position import WRITTEN_UP_TO, Position, reachable
from app.infra.reads import Reader

# Postgres takes the snapshot before it reads the position of the same row, and after the position
# of the previous row. xmax follows the last transaction that has ended. A newer one may run, and
# may be committing.
HOW_FAR = f"""
    SELECT timeline_id, lsn,
        pg_snapshot_xmin(seen) = pg_snapshot_xmax(seen)
        AND age(pg_snapshot_xmax(seen)::xid) = 0 AS nobody_writes
    FROM ({WRITTEN_UP_TO}) AS here, pg_current_snapshot() AS seen
"""  # noqa: S608  # nothing from outside


class Sampler:
    """A read that begins now shows all that was committed before the sampled position.

    A commit is in the log before anybody can see it. So the end of the log proves nothing about
    a commit that stands exactly there. But when nobody writes, the commit at the previous sample
    can be seen. Without this rule no answer cached after a write could be used until another write.
    """

    def __init__(self) -> None:
        self._last = Position(0, 0)
        self._running: asyncio.Task[Position | None] | None = None

    async def sample(self, read: Reader) -> Position | None:
        """None if the server is no primary. Concurrent callers share one sample."""
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
