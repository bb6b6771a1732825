# Rung's file: advancing to another stage may change it.
"""Sequences, which replication does not copy: the database that takes writes gets higher values."""

from typing import NamedTuple

from app.infra.module_databases.move.sides import Side, Way

# The target skips this many values, if it has them: the source may have given some to transactions
# that failed.
SKIPPED_VALUES = 1000

# Sequences that a column owns or its default uses. Sequences that no table of the database uses
# count too: code or a function uses them, and in the module's own database they are the module's.
OF_TABLES = """
    WITH asked AS (
        SELECT objid AS oid, refobjid AS by FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
        AND deptype IN ('a', 'i')
        UNION
        SELECT refobjid, adrelid FROM pg_depend JOIN pg_attrdef ON objid = pg_attrdef.oid
        WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_class'::regclass
    ), ours AS (SELECT oid FROM asked WHERE by = ANY($1::text[]::regclass[]))
    SELECT seqrelid::regclass::text AS name, seqrelid IN (SELECT oid FROM ours) AS has_column,
        format('%s from %s to %s by %s%s', seqtypid::regtype, seqmin, seqmax, seqincrement,
            CASE WHEN seqcycle THEN ', again and again' END) AS rule,
        ARRAY(SELECT DISTINCT by::regclass::text FROM asked JOIN pg_class ON pg_class.oid = by
            WHERE asked.oid = seqrelid AND by <> ALL($1::text[]::regclass[])
            AND relkind IN ('r', 'p', 'f')) AS others
    FROM pg_sequence
    WHERE seqrelid IN (SELECT oid FROM ours) OR seqrelid NOT IN (SELECT oid FROM asked)
    AND has_sequence_privilege(seqrelid, 'SELECT') AND has_sequence_privilege(seqrelid, 'UPDATE')
    ORDER BY name
"""
# pg_sequence_last_value() is NULL after setval(…, false).
LAST = "SELECT last_value FROM {name}"
ADVANCE = """
    SELECT setval(seqrelid::regclass, CASE WHEN seqincrement > 0
        THEN greatest(last_value, CASE WHEN room <= seqmax THEN room ELSE last END)
        ELSE least(last_value, CASE WHEN room >= seqmin THEN room ELSE last END)
    END::bigint) FROM {name}, pg_sequence, LATERAL (
        SELECT $2::bigint, $2::bigint + $3::int * seqincrement::numeric
    ) AS _ (last, room) WHERE seqrelid = to_regclass($1)
"""


class Sequence(NamedTuple):
    name: str
    has_column: bool
    rule: str
    others: list[str]  # tables that do not move, and get values from it too


async def of(side: Side, tables: tuple[str, ...]) -> dict[str, Sequence]:
    rows = await side.rows(OF_TABLES, tables)
    return {row["name"]: Sequence(*row) for row in rows}


async def advance(way: Way) -> None:
    ours, theirs = [await of(side, way.tables) for side in (way.source, way.target)]
    for name in sorted(ours.keys() & theirs):
        last = await way.source.value(LAST.format(name=name))
        await way.target.run(ADVANCE.format(name=name), name, last, SKIPPED_VALUES)
