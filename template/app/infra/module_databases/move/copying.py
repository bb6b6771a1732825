# Rung's file: advancing to another stage may change it.
"""Copies a module's tables by logical replication, until the new database has all rows."""

import asyncio
import sys
import time
from dataclasses import dataclass

from app.infra.module_databases.move import fence
from app.infra.module_databases.move.preflight import complaints
from app.infra.module_databases.move.sides import Move, Refused, Way

SHOWN_EVERY_SECONDS = 1.0
LONGEST_MEASURED = 2.0  # seconds

STATES = """
    SELECT srrelid::regclass::text AS table, srsubstate IN ('r', 's') AS is_ready,
        srsubstate = 'f' AS is_copied, coalesce(tuples_processed, 0) AS rows
    FROM pg_subscription_rel JOIN pg_subscription ON srsubid = pg_subscription.oid
    LEFT JOIN pg_stat_progress_copy ON relid = srrelid AND datname = current_database()
    WHERE subname = $1
"""
# Postgres knows no number of rows before the first ANALYZE: assume 100 bytes a row.
ROWS = """
    SELECT CASE WHEN reltuples < 0 THEN pg_relation_size(oid) / 100 ELSE reltuples END::bigint
    FROM pg_class WHERE oid = to_regclass($1)
"""
ERRORS = """
    SELECT sync_error_count + apply_error_count FROM pg_stat_subscription_stats WHERE subname = $1
"""


@dataclass(frozen=True)
class Progress:
    module: str
    tables: int
    ready: int
    rows: int
    of_rows: int
    bytes_behind: int
    seconds_behind: float | None
    errors: int
    at: float

    @property
    def is_copied(self) -> bool:
        return self.ready == self.tables

    def line(self, before: "Progress | None" = None) -> str:
        parts = [f"{self.module}: {self.ready} of {self.tables} tables copied"]
        if not self.is_copied:
            parts.append(f"about {self.rows:,} of {self.of_rows:,} rows")
        behind = in_words(self.seconds_behind)
        parts.append(f"{self.bytes_behind / 1e6:,.1f} MB and {behind} behind")
        if before and not self.is_copied and self.rows > before.rows:
            rate = (self.rows - before.rows) / (self.at - before.at)
            parts.append(f"about {max(self.of_rows - self.rows, 0) / rate:,.0f} s left")
        if self.errors:
            parts.append(f"{self.errors} errors: the log of the new server names them")
        return ", ".join(parts)


async def copy(move: Move) -> str:
    """Also continues a copy whose command was killed."""
    if not await move.there.is_subscribed():
        if found := await complaints(move):
            raise Refused("\n".join(found))
        # Before the cut, only replication may write there.
        await fence.close(move.new, move)
        await move.there.begin(copy_data=True)
    await follow(move)
    return f"{move.module}: the new database has all tables, and each change follows. Next: compare"


async def follow(move: Move) -> None:
    before, pause = None, 0.1
    while True:
        now = await progress(move)
        show(now.line(before))
        if now.is_copied:
            return
        before = before or now
        await asyncio.sleep(pause)
        pause = min(2 * pause, SHOWN_EVERY_SECONDS)


async def progress(move: Move) -> Progress:
    way = move.there
    if not await way.is_subscribed():
        raise Refused(f"No copy of {move.module} runs. Begin it with: copy")
    await way.refuse_if_lost()
    states = await move.new.rows(STATES, way.name)
    total = {row["table"]: await move.old.value(ROWS, row["table"]) or 0 for row in states}
    slot = await way.slot()
    return Progress(
        move.module,
        tables=len(states),
        ready=sum(row["is_ready"] for row in states),
        rows=sum(
            total[row["table"]]
            if row["is_ready"] or row["is_copied"]
            else min(row["rows"], total[row["table"]])
            for row in states
        ),
        of_rows=sum(total.values()),
        bytes_behind=slot.bytes_behind if slot else 0,
        seconds_behind=await seconds_behind(way),
        errors=await move.new.value(ERRORS, way.name) or 0,
        at=time.monotonic(),
    )


async def seconds_behind(way: Way) -> float | None:
    """Measured: how long the target takes to replay what is committed now."""
    begun = time.monotonic()
    position = await way.source.position()
    has_replayed = await way.replays(position, within=LONGEST_MEASURED)
    return time.monotonic() - begun if has_replayed else None


def in_words(seconds: float | None) -> str:
    return f"more than {LONGEST_MEASURED:.0f} s" if seconds is None else f"{seconds:.2f} s"


async def abort(move: Move) -> str:
    """The old database stays as it is: it has served all the time."""
    if await fence.is_closed(move.old, move):
        raise Refused(f"{move.module} has moved: the old tables take no writes. Run back first.")
    await move.back.end()
    await move.there.end()
    for side in (move.new, move.old):
        await fence.remove(side, move)
    return (
        f"{move.module}: replication has ended, and the old database is as before. The new one"
        f" keeps what was copied. Before the next copy, there: TRUNCATE {', '.join(move.tables)}"
    )


def show(line: str) -> None:
    print(line, end="\r" if sys.stdout.isatty() else "\n", flush=True)
