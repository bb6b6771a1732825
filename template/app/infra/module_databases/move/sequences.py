# Rung's file: advancing to another stage may change it.
"""Sequences, which replication does not bring: the side that takes over gets higher values."""

from app.infra.module_databases.move.sides import Side, Way

ROOM = 1000

# Those that a column owns, and those that a default asks.
OF_TABLES = """
    WITH ours AS (SELECT unnest($1::text[]::regclass[]) AS oid)
    SELECT seqrelid::regclass::text AS name,
        coalesce(pg_sequence_last_value(seqrelid), seqstart) AS last
    FROM pg_sequence WHERE seqrelid IN (
        SELECT objid FROM pg_depend JOIN ours ON refobjid = ours.oid
        WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass
        AND deptype IN ('a', 'i')
        UNION
        SELECT refobjid FROM pg_depend JOIN pg_attrdef ON objid = pg_attrdef.oid
        JOIN ours ON adrelid = ours.oid
        WHERE classid = 'pg_attrdef'::regclass AND refclassid = 'pg_class'::regclass
    ) ORDER BY name
"""
ADVANCE = """
    SELECT setval(seqrelid::regclass, CASE WHEN seqincrement > 0
        THEN least(seqmax, greatest($2 + $3 * seqincrement, pg_sequence_last_value(seqrelid)))
        ELSE greatest(seqmin, least($2 + $3 * seqincrement, pg_sequence_last_value(seqrelid)))
    END) FROM pg_sequence WHERE seqrelid = to_regclass($1)
"""


async def of(side: Side, tables: tuple[str, ...]) -> dict[str, int]:
    """Each with its last value."""
    return {row["name"]: row["last"] for row in await side.rows(OF_TABLES, tables)}


async def advance(way: Way) -> None:
    for name, last in (await of(way.source, way.tables)).items():
        await way.target.run(ADVANCE, name, last, ROOM)
