# Rung's file: advancing to another stage may change it.
"""Finds indexes that are missing, unused, duplicate or broken."""

from collections.abc import Iterable
from dataclasses import dataclass

import asyncpg

from app.infra.slow_queries.report import MANY_ROWS, DuplicateIndex, InvalidIndex, UnusedIndex

INDEXES = """
    SELECT /* app.infra.slow_queries */
        indexrelid::regclass::text AS name,
        indrelid::regclass::text AS "table",
        indexrelid::bigint AS oid,
        pg_relation_size(indexrelid) AS bytes,
        greatest(tables.reltuples, n_live_tup)::bigint AS table_rows,
        pg_stat_user_indexes.idx_scan AS scans,
        indisvalid AND indisready AS is_valid,
        EXISTS (
            SELECT FROM pg_stat_progress_create_index
            WHERE index_relid = indexrelid
        ) AS is_being_built,
        indisunique AS is_unique,
        EXISTS (
            SELECT FROM pg_constraint
            WHERE conindid = indexrelid AND conrelid = indrelid
        ) AS backs_constraint,
        EXISTS (
            SELECT FROM pg_constraint
            WHERE contype = 'f' AND conrelid = indrelid
                AND (indkey::int2[])[0:cardinality(conkey) - 1] @> conkey
        ) AS serves_foreign_key,
        -- A partition's index goes with that of the whole table, an identity with replication.
        indexes.relispartition OR indisreplident AS belongs_to_more,
        amname || coalesce(' where ' || pg_get_expr(indpred, indrelid), '') AS kind,
        ARRAY(
            SELECT concat_ws(
                ' ',
                pg_get_indexdef(indexrelid, n, false),
                indclass[n - 1],
                indcollation[n - 1],
                indoption[n - 1]
            )
            FROM generate_series(1, indnkeyatts) AS n ORDER BY n
        ) AS keys,
        ARRAY(
            SELECT pg_get_indexdef(indexrelid, n, false)
            FROM generate_series(1, indnatts) AS n ORDER BY n
        ) AS columns
    FROM pg_index
        JOIN pg_stat_user_indexes USING (indexrelid)
        JOIN pg_class AS indexes ON indexes.oid = indexrelid
        JOIN pg_am ON pg_am.oid = indexes.relam
        JOIN pg_class AS tables ON tables.oid = indrelid
        JOIN pg_stat_user_tables ON pg_stat_user_tables.relid = indrelid
    WHERE indexes.relpersistence <> 't'
    ORDER BY bytes DESC, name
"""


@dataclass(frozen=True)
class Index:
    name: str
    table: str
    oid: int
    bytes: int
    table_rows: int
    scans: int
    is_valid: bool
    is_being_built: bool
    is_unique: bool
    backs_constraint: bool
    serves_foreign_key: bool
    belongs_to_more: bool
    kind: str
    keys: list[str]
    columns: list[str]

    def could_stand_in_for(self, other: "Index") -> bool:
        if (self.table, self.kind) != (other.table, other.kind) or not self.is_valid:
            return False
        if other.is_unique and not (self.is_unique and self.keys == other.keys):
            return False
        same_beginning = self.keys[: len(other.keys)] == other.keys
        ordered = self.kind.startswith("btree") or self.keys == other.keys
        return same_beginning and ordered and set(other.columns) <= set(self.columns)

    @property
    def worth(self) -> tuple[bool, bool, int]:
        """Of two equivalent indexes, keep the one with the greater value."""
        return self.backs_constraint, self.is_unique, -self.oid


async def all_indexes(connection: asyncpg.Connection) -> list[Index]:
    return [Index(**record) for record in await connection.fetch(INDEXES)]


def unused(indexes: Iterable[Index]) -> list[UnusedIndex]:
    return [
        UnusedIndex(index=index.name, table=index.table, bytes=index.bytes)
        for index in indexes
        if index.scans == 0 and index.table_rows >= MANY_ROWS and index.is_valid
        if not (index.is_unique or index.backs_constraint)
        if not (index.serves_foreign_key or index.belongs_to_more)
    ]


def duplicate(indexes: list[Index]) -> list[DuplicateIndex]:
    return [
        DuplicateIndex(index=index.name, table=index.table, bytes=index.bytes, kept=kept.name)
        for index in indexes
        if index.is_valid and not (index.backs_constraint or index.belongs_to_more)
        if (kept := _kept_instead_of(index, indexes))
    ]


def _kept_instead_of(index: Index, indexes: list[Index]) -> Index | None:
    better = [
        other
        for other in indexes
        if other is not index and other.could_stand_in_for(index)
        if other.worth > index.worth or not index.could_stand_in_for(other)
    ]
    return max(better, key=lambda other: (len(other.keys), other.worth), default=None)


def invalid(indexes: Iterable[Index]) -> list[InvalidIndex]:
    return [
        InvalidIndex(index=index.name, table=index.table, command=_repair(index))
        for index in indexes
        if not (index.is_valid or index.is_being_built or index.belongs_to_more)
    ]


def _repair(index: Index) -> str:
    # A failed REINDEX leaves these behind. The index to be replaced still exists.
    if index.name.strip('"').rstrip("0123456789").endswith(("_ccnew", "_ccold")):
        return f"DROP INDEX CONCURRENTLY {index.name}"
    return f"REINDEX INDEX CONCURRENTLY {index.name}"
