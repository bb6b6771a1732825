# Rung's file: advancing to another stage may change it.
"""The statements that Postgres counts, and the plan of each, without running it."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import asyncpg

# For rows of pg_stat_statements: those of this database, without the commands of app/infra. COPY,
# VACUUM, BEGIN and the like do not count, because no index makes them faster.
COUNTED = r"""
    dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND toplevel
        AND query ~* '^[\s(]*(select|insert|update|delete|merge|with|values|table)\M'
        AND strpos(query, '/* app.infra.') = 0
"""

PARAMETERS = """
    SELECT /* app.infra.plans */ cardinality(parameter_types) FROM pg_prepared_statements
"""


class Scan(NamedTuple):
    """A step of a plan that reads a table. `filter` drops rows after they were read."""

    kind: str
    schema: str
    table: str
    index_name: str | None
    filter: str | None


async def scans(connection: asyncpg.Connection, sql: str) -> list[Scan]:
    """The scans of the generic plan, which Postgres makes without knowing the values."""
    return [
        Scan(
            kind=node["Node Type"],
            schema=node["Schema"],
            table=node["Relation Name"],
            index_name=node.get("Index Name"),
            filter=node.get("Filter"),
        )
        for node in nodes_of(await _plan(connection, sql))
        if "Relation Name" in node
    ]


async def _plan(connection: asyncpg.Connection, sql: str) -> dict[str, Any]:
    # EXPLAIN (GENERIC_PLAN) would be one step, but then the driver must give $1 a value. For NULL,
    # Postgres plans to read nothing.
    try:
        async with connection.transaction():  # a savepoint: an error must not end the report
            await connection.fetch(f"PREPARE slow_query AS {sql}")  # direct
            count = await connection.fetchval(PARAMETERS)
            values = f"({', '.join(['NULL'] * count)})" if count else ""
            found = await connection.fetchval(
                f"EXPLAIN (VERBOSE, FORMAT JSON) EXECUTE slow_query {values}"
            )
    except asyncpg.PostgresError:
        # Its table is gone or not readable, or $1 is in a place where Postgres allows none.
        return {}
    finally:
        await connection.execute("DEALLOCATE ALL")  # direct
    top: dict[str, Any] = json.loads(found)[0]["Plan"]
    return top


def nodes_of(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The node of a plan, and all below it."""
    yield node
    for child in node.get("Plans", ()):
        yield from nodes_of(child)
