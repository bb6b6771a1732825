# Rung's file: advancing to another stage may change it.
"""Whether both databases hold the same rows, while clients write."""

import json
from collections.abc import AsyncGenerator
from typing import NamedTuple, Self

from app.infra.module_databases.move import fence
from app.infra.module_databases.move.copying import show
from app.infra.module_databases.move.sides import Move, Refused, Side, Way

# Rows that differ are compared again: one of the two may have been read before a write.
ROUNDS = 10

# A range of the primary key is compared at a time: the rows of a table may not fit in memory.
ROWS_AT_ONCE = 1_000_000

COLUMNS = """
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attname) FROM pg_attribute
    WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
KEY = """
    SELECT quote_ident(attname) AS name, format_type(atttypid, atttypmod) AS type,
        quote_literal('::' || format_type(atttypid, atttypmod)) AS quoted_cast
    FROM pg_index CROSS JOIN unnest(indkey::int2[]) WITH ORDINALITY AS part (number, place)
    JOIN pg_attribute ON attrelid = indrelid AND attnum = number
    WHERE indrelid = to_regclass($1) AND indisprimary AND place <= indnkeyatts ORDER BY place
"""
BOUND = """
    SELECT concat_ws(', ', {literals}) FROM {table} WHERE {which}
    ORDER BY {key} OFFSET {rows} LIMIT 1
"""
# The keys divide the rows into 16,384 parts. Only parts that differ are compared row by row.
ALL = """
    SELECT array_to_json(ARRAY[{texts}])::text AS key,
        hashtextextended(ROW({key})::text, 0) & 16383 AS part,
        hashtextextended(ROW({columns})::text, 0) AS hash
    FROM {table} WHERE {which}
"""
PARTS = "SELECT part, count(*), sum(hash) FROM ({all}) GROUP BY part"
ROWS = "SELECT key, hash FROM ({all}) WHERE part = ANY($1)"
THESE_ROWS = "SELECT key, hash FROM ({all})"
THESE = "({key}) IN (SELECT {values} FROM json_array_elements($1::json) AS suspect)"

type Rows = dict[str, int]


async def compare(move: Move) -> str:
    """Raises Refused with a line for each table that differs."""
    has_moved = await fence.is_closed(move.old, move)
    way = move.back if has_moved and await move.back.is_subscribed() else move.there
    if not await way.is_subscribed():
        raise Refused(
            f"Nothing replicates {move.module}, so its databases cannot be compared. See: status"
        )
    compared, differing = 0, []
    for name in move.tables:
        table = await Table.of(way, name)
        rows, wrong = await table.compared()
        compared += rows
        if wrong:
            keys = ", ".join(f"({', '.join(json.loads(key))})" for key in sorted(wrong)[:3])
            differing.append(f"{name}: {len(wrong):,} rows differ: {keys}")
    if differing:
        raise Refused("\n".join(differing))
    return f"{move.module}: both databases hold the same {compared:,} rows."


class Table(NamedTuple):
    way: Way
    name: str
    sql: dict[str, str]  # of the tables, for the statements

    @classmethod
    async def of(cls, way: Way, name: str) -> Self:
        key = await way.source.rows(KEY, name)
        parts = {
            "table": name,
            "columns": await way.source.value(COLUMNS, name),
            "key": ", ".join(column["name"] for column in key),
            "texts": ", ".join(f"{column['name']}::text" for column in key),
            "literals": ", ".join(
                f"quote_literal({column['name']}::text) || {column['quoted_cast']}"
                for column in key
            ),
            "values": ", ".join(
                f"(suspect ->> {place})::{column['type']}" for place, column in enumerate(key)
            ),
        }
        return cls(way, name, parts)

    async def compared(self) -> tuple[int, set[str]]:
        """The number of rows, and the keys of those that differ."""
        rows, wrong = 0, set[str]()
        async for which in self._ranges():
            rows += await self._compare(which, wrong)
            show(f"{self.name}: {rows:,} rows compared, {len(wrong):,} differ")
        return rows, wrong

    async def _ranges(self) -> AsyncGenerator[str]:
        """The conditions of ranges that contain each key once."""
        key, above = self.sql["key"], "true"
        while last := await self._last_of_range(above):
            yield f"{above} AND ({key}) <= ({last})"
            above = f"({key}) > ({last})"
        yield above

    async def _last_of_range(self, above: str) -> str | None:
        bound = BOUND.format(**self.sql, which=above, rows=ROWS_AT_ONCE - 1)
        last: str | None = await self.way.source.value(bound)
        return last

    async def _compare(self, which: str, wrong: set[str]) -> int:
        """Adds the keys of the rows that differ to `wrong`. Returns the number of rows."""
        source, target = self.way.source, self.way.target
        all_of_range = ALL.format(**self.sql, which=which)
        await self.way.catch_up()
        query = PARTS.format(all=all_of_range)
        ours = set(map(tuple, await source.rows(query)))
        theirs = set(map(tuple, await target.rows(query)))
        parts = [part for part, _, _ in ours ^ theirs]
        if parts:
            query = ROWS.format(all=all_of_range)
            there = await self._rows(source, query, parts)
            await self.way.catch_up()
            copied = await self._rows(target, query, parts)
            wrong |= await self._certain(different(there, copied))
        rows: int = sum(count for _, count, _ in ours)
        return rows

    async def _certain(self, suspects: set[str]) -> set[str]:
        """Those that differ still when nobody has changed them meanwhile."""
        these = THESE.format(**self.sql)
        query = THESE_ROWS.format(all=ALL.format(**self.sql, which=these))
        wrong = set[str]()
        for _ in range(ROUNDS):
            if not suspects:
                break
            keys = f"[{','.join(suspects)}]"
            before = await self._rows(self.way.source, query, keys)
            await self.way.catch_up()
            copied = await self._rows(self.way.target, query, keys)
            after = await self._rows(self.way.source, query, keys)
            changing = different(before, after)
            wrong |= different(before, copied) - changing
            suspects = changing
        return wrong | suspects

    async def _rows(self, side: Side, query: str, which: object) -> Rows:
        found = await side.rows(query, which)
        return {row["key"]: row["hash"] for row in found}


def different(ours: Rows, theirs: Rows) -> set[str]:
    return {key for key, _ in ours.items() ^ theirs.items()}
