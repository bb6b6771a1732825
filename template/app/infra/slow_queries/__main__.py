# Rung's file: advancing to another stage may change it.
"""python -m app.infra.slow_queries: where a database spends its time, and what its indexes lack."""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pydantic import Field, PostgresDsn

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.failures import POSTGRES_FAILS, Unavailable, ends_in_words, reason_of
from app.infra.plans import COUNTED, Scan, scans
from app.infra.pooling.connections import PostgresUrls, server_name
from app.infra.slow_queries.indexes import all_indexes, duplicate, invalid, unused
from app.infra.slow_queries.report import (
    MANY_ROWS,
    FilteringUse,
    ReplicaReport,
    Report,
    SequentialTable,
    SequentialUse,
    Statement,
)

# The report plans this many statements, the costliest first, to find the tables that they read.
PLANNED = 50

# A call that reads fewer pages takes about a millisecond.
MANY_PAGES = 500
MANY_PAGES_A_ROW = 20

# The comment in each of these keeps the report and the doctor from reporting on themselves.
SERVER = """
    SELECT /* app.infra.slow_queries */
        datname AS database,
        quote_ident(current_user) AS role,
        pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_every_statement,
        -- The library's own setting is there if the library is, and every role may look.
        EXISTS (SELECT FROM pg_settings WHERE name = 'pg_stat_statements.max') AS is_loaded,
        (
            SELECT extnamespace::regnamespace::text FROM pg_extension
            WHERE extname = 'pg_stat_statements'
        ) AS schema,
        -- The crash of one session resets all counts, but only pg_stat_bgwriter shows the time.
        greatest(
            coalesce(stats_reset, pg_postmaster_start_time()),
            (SELECT stats_reset FROM pg_stat_bgwriter)
        ) AS counted_since
    FROM pg_stat_database
    WHERE datname = current_database()
"""

FORGOTTEN = """
    SELECT /* app.infra.slow_queries */ dealloc, stats_reset
    FROM {schema}.pg_stat_statements_info
"""

STATEMENTS = """
    SELECT /* app.infra.slow_queries */
        queryid::text AS id,
        min(query) AS sql,
        sum(calls)::bigint AS calls,
        sum(total_exec_time) AS total_ms,
        sum(total_exec_time) / sum(calls) AS mean_ms,
        sum(rows)::bigint AS rows,
        sum(shared_blks_hit + shared_blks_read)::bigint AS pages,
        coalesce(sum(total_exec_time) / nullif(sum(sum(total_exec_time)) OVER (), 0), 0) AS share
    FROM {schema}.pg_stat_statements
    WHERE {counted}
    GROUP BY queryid
    ORDER BY total_ms DESC, id
    LIMIT $1
"""

# Judged by rows, because a scan that ends at its first row costs nothing. An index scan's rows
# are its index's entries, because an index-only scan fetches none from the table.
LARGE_TABLES = """
    SELECT /* app.infra.slow_queries */ *,
        sequential_rows > index_rows
        AND sequential_rows >= 1000 * sequential_scans
        AND sequential_scans >= greatest(100, (sequential_scans + index_scans) / 1000)
        AS is_read_sequentially
    FROM (
        SELECT
            schemaname AS schema,
            pg_stat_user_tables.relname AS name,
            relid::regclass::text AS "table",
            greatest(reltuples, n_live_tup)::bigint AS rows,
            seq_scan AS sequential_scans,
            seq_tup_read AS sequential_rows,
            coalesce(idx_scan, 0) AS index_scans,
            (
                SELECT coalesce(sum(idx_tup_read), 0)::bigint FROM pg_stat_user_indexes
                WHERE pg_stat_user_indexes.relid = pg_stat_user_tables.relid
            ) AS index_rows
        FROM pg_stat_user_tables JOIN pg_class ON pg_class.oid = relid
    ) AS counted
    WHERE rows >= $1
    ORDER BY sequential_rows DESC
"""


class ReportImpossible(SystemExit):
    """Ends the command. Says what the server lacks, and the command that gives it."""


class ServerSettings(DatabaseSettings):
    replica_urls: PostgresUrls = Field([])


def main() -> None:
    arguments = parsed()
    report = reported(environment.read(ServerSettings), arguments.limit)
    print(report.as_json() if arguments.json else report.as_text())
    if report.problems:
        sys.exit("\n".join(report.problems))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="slow_queries", description=__doc__)
    parser.add_argument("--limit", type=_at_least_one, default=10, help="statements; default: 10")
    parser.add_argument("--json", action="store_true", help="the same as a JSON object")
    return parser.parse_args()


def reported(settings: ServerSettings, limit: int) -> Report:
    """Raises SystemExit, which says what Postgres lacks."""
    with ends_in_words():
        return asyncio.run(make_report(settings, limit))


def _at_least_one(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given} is not a whole number from 1 on")
    return int(given)


async def make_report(settings: ServerSettings, limit: int) -> Report:
    """Raises ReportImpossible, Unavailable, and asyncpg's own errors."""
    replicas, used = await _of_replicas(settings, limit)
    async with session(settings, settings.direct_url) as connection:
        server, counts = await _counts(connection, limit)
        forgotten = await connection.fetchrow(FORGOTTEN.format(schema=server["schema"]))
        indexes = await all_indexes(connection)
        return Report(
            **counts,
            database=server["database"],
            statements_since=forgotten["stats_reset"],
            statements_forgotten=forgotten["dealloc"],
            tables_since=server["counted_since"],
            unused_indexes=[one for one in unused(indexes) if one.index not in used],
            duplicate_indexes=duplicate(indexes),
            invalid_indexes=invalid(indexes),
            replicas=replicas,
        )


async def _of_replicas(
    settings: ServerSettings, limit: int
) -> tuple[list[ReplicaReport], set[str]]:
    """A report of each replica, and the indexes that any of them uses."""
    reports, used = [], set()
    for url in settings.replica_urls:
        server = server_name(url)
        try:
            async with session(settings, url) as connection:
                _, counts = await _counts(connection, limit)
                used |= {index.name for index in await all_indexes(connection) if index.scans}
                report = ReplicaReport(server=server, **counts)
        except (ReportImpossible, Unavailable, *POSTGRES_FAILS) as error:
            report = ReplicaReport(server=server, problem=reason_of(error))
        reports.append(report)
    return reports, used


async def _counts(
    connection: asyncpg.Connection, limit: int
) -> tuple[asyncpg.Record, dict[str, Any]]:
    """Facts about a server, and the part of the report that a replica has too."""
    server = await connection.fetchrow(SERVER)
    _refuse_what_lacks(server)
    costliest = STATEMENTS.format(schema=server["schema"], counted=COUNTED)
    found = await connection.fetch(costliest, max(limit, PLANNED))
    statements = [Statement(**record) for record in found]
    planned = [
        (statement, scan)
        for statement in statements[:PLANNED]
        for scan in await scans(connection, statement.sql)
    ]
    tables = await connection.fetch(LARGE_TABLES, MANY_ROWS)
    return server, {
        "statements": statements[:limit],
        "sequential_tables": _sequential_tables(tables, planned),
        "filtering_scans": _filtering_scans(tables, planned),
    }


@asynccontextmanager
async def session(
    settings: DatabaseSettings, url: PostgresDsn
) -> AsyncGenerator[asyncpg.Connection]:
    """The session never waits long for a lock, and never blocks others for long."""
    connection = await connect(settings, url, read_only=True, statement_cache_size=0)
    try:
        # A replica may be behind a pooler, where a session lasts for one transaction.
        async with connection.transaction():
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            await connection.execute("SET LOCAL plan_cache_mode = force_generic_plan")
            yield connection
    finally:
        await connection.close()


def _refuse_what_lacks(server: asyncpg.Record) -> None:
    if not server["is_loaded"]:
        raise ReportImpossible(
            "Postgres does not count statements yet. Start it with what deploy/postgres.conf says,"
            " or as its superuser:\n\n"
            "    ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements, auto_explain;\n\n"
            "then restart it. (If SHOW shared_preload_libraries names others, keep them in the"
            " list. On RDS it is a setting of the parameter group.)"
        )
    if not server["schema"]:
        raise ReportImpossible(
            f"The database {server['database']} cannot show the statements that Postgres counts."
            " Once, in this database, as its superuser (on RDS the master user):\n\n"
            "    CREATE EXTENSION pg_stat_statements;"
        )
    if not server["sees_every_statement"]:
        raise ReportImpossible(
            f"The role {server['role']} may not see the statements of other roles."
            " Once, as the superuser (on RDS the master user):\n\n"
            f"    GRANT pg_read_all_stats TO {server['role']};"
        )


def _sequential_tables(
    tables: list[asyncpg.Record], planned: list[tuple[Statement, Scan]]
) -> list[SequentialTable]:
    uses = defaultdict(list)
    for statement, scan in planned:
        if scan.kind == "Seq Scan":
            use = SequentialUse(**dict(statement), filter=scan.filter)
            uses[scan.schema, scan.table].append(use)
    return [
        SequentialTable(**table, statements=uses[table["schema"], table["name"]])
        for table in tables
        if table["is_read_sequentially"]
    ]


def _filtering_scans(
    tables: list[asyncpg.Record], planned: list[tuple[Statement, Scan]]
) -> list[FilteringUse]:
    large = {(table["schema"], table["name"]): table["table"] for table in tables}
    return [
        FilteringUse(
            **dict(statement),
            table=table,
            index=scan.index_name,
            filter=scan.filter,
            pages_per_call=statement.pages / statement.calls,
            rows_per_call=statement.rows / statement.calls,
        )
        for statement, scan in planned
        if statement.pages >= max(MANY_PAGES * statement.calls, MANY_PAGES_A_ROW * statement.rows)
        if scan.index_name and scan.filter and (table := large.get((scan.schema, scan.table)))
    ]


if __name__ == "__main__":
    main()
