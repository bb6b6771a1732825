# Rung's file: advancing to another stage may change it.
"""Whether both databases hold the same rows, while clients write."""

from collections.abc import Collection
from typing import Any

from app.infra.module_databases.move import fence
from app.infra.module_databases.move.copying import show
from app.infra.module_databases.move.sides import Move, Refused, Side, Way

# Rows that differ are compared again: one of the two may have been read before a write.
ROUNDS = 10
PAUSE_SECONDS = 0.1

COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname),
        string_agg(quote_ident(attname), ', ' ORDER BY attname)
            FILTER (WHERE attnum = ANY(indkey::int2[]))
    FROM pg_attribute JOIN pg_index ON indrelid = attrelid AND indisprimary
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
# The keys divide the rows into 4096 parts. Only parts that differ are compared row by row.
ALL = """
    SELECT ROW({key})::text AS key, hashtextextended(ROW({key})::text, 0) & 4095 AS part,
        hashtextextended(ROW({columns})::text, 0) AS hash FROM {table}
"""
PARTS = "SELECT part, count(*), sum(hash) FROM ({all}) GROUP BY part"
ROWS = "SELECT key, hash FROM ({all}) WHERE part = ANY($1)"
THESE = "SELECT key, hash FROM ({all}) WHERE key = ANY($1)"

type Rows = dict[str, int]


async def compare(move: Move) -> str:
    """Raises Refused with a line for each table that differs."""
    has_moved = await fence.is_closed(move.old, move)
    way = move.back if has_moved and await move.back.is_subscribed() else move.there
    compared, differing = 0, []
    for table in move.tables:
        rows, wrong = await Table(way, table).compared()
        compared += rows
        if wrong:
            differing.append(f"{table}: {len(wrong):,} rows differ: {', '.join(sorted(wrong)[:3])}")
        show(f"{table}: {rows:,} rows compared, {len(wrong):,} differ")
    if differing:
        raise Refused("\n".join(differing))
    return f"{move.module}: both databases hold the same {compared:,} rows."


class Table:
    def __init__(self, way: Way, name: str) -> None:
        self._way = way
        self._name = name

    async def compared(self) -> tuple[int, Collection[str]]:
        """The number of rows, and the keys of those that differ."""
        source, target = self._way.source, self._way.target
        [(columns, key)] = await source.rows(COLUMNS, self._name)
        self._all = ALL.format(columns=columns, key=key, table=self._name)
        await self._way.catch_up()
        ours, theirs = [set(await self._read(side, PARTS)) for side in (source, target)]
        rows: int = sum(count for _, count, _ in ours)
        parts = {part for part, _, _ in ours ^ theirs}
        there = await self._of(source, ROWS, parts)
        suspects = different(there, await self._caught_up(ROWS, parts))
        wrong: set[str] = set()
        for _ in range(ROUNDS):
            if not suspects:
                break
            before = await self._of(source, THESE, suspects)
            copied = await self._caught_up(THESE, suspects)
            after = await self._of(source, THESE, suspects)
            changing = different(before, after)
            wrong |= different(before, copied) - changing
            suspects = changing
        return rows, wrong | suspects

    async def _caught_up(self, query: str, which: Collection[object]) -> Rows:
        await self._way.catch_up()
        return await self._of(self._way.target, query, which)

    async def _of(self, side: Side, query: str, which: Collection[object]) -> Rows:
        return dict(await self._read(side, query, list(which))) if which else {}

    async def _read(self, side: Side, query: str, *values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await side.rows(query.format(all=self._all), *values)]


def different(ours: Rows, theirs: Rows) -> set[str]:
    return {key for key, _ in ours.items() ^ theirs.items()}
