# Rung's file: advancing to another stage may change it.
"""Measures Postgres for some seconds: one read-only connection, and each query may fail alone."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime
from statistics import fmean
from typing import Any, NamedTuple

import asyncpg

from app.infra import plans
from app.infra.connections import DatabaseSettings, connect
from app.infra.doctor.evidence import Database, Scan, Skipped, Statement, Table
from app.infra.doctor.finding import Window
from app.infra.failures import POSTGRES_FAILS, NotConnected, reason_of

SAMPLE_SECONDS = 0.5
# A smaller table needs no index. Only the costliest statements get a plan.
MOST_PLANS = 5
WORTH_A_PLAN = 0.2

TOO_MANY_CONNECTIONS = "53300"
OWN_LIMIT = "too many connections for"  # … role "shop", … database "shop"

SERVER = """
    SELECT /* app.infra.doctor */
        pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
        quote_ident(current_user) AS role,
        current_setting('max_connections')::int AS slots,
        (SELECT max(age(datfrozenxid)) FROM pg_database)::bigint AS oldest_xid,
        (
            SELECT extnamespace::regnamespace::text FROM pg_extension
            WHERE extname = 'pg_stat_statements'
        ) AS statements
"""

SESSIONS = """
    SELECT /* app.infra.doctor */
        pid,
        state,
        state_change,
        xact_start,
        wait_event_type AS type,
        wait_event AS event,
        extract(epoch FROM clock_timestamp() - state_change)::float AS seconds,
        CASE wait_event_type WHEN 'Lock' THEN pg_blocking_pids(pid) END AS blockers
    FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
        AND backend_type IN ('client backend', 'parallel worker')
"""

CLIENTS = """
    SELECT /* app.infra.doctor */ count(*)::int FROM pg_stat_activity
    WHERE backend_type = 'client backend'
"""

STATEMENTS = """
    SELECT /* app.infra.doctor */
        queryid AS id,
        min(query) AS sql,
        sum(calls)::bigint AS calls,
        sum(total_exec_time)::float AS ms,
        sum(rows)::bigint AS rows,
        sum(shared_blks_hit + shared_blks_read)::bigint AS pages
    FROM {schema}.pg_stat_statements
    WHERE {counted}
    GROUP BY queryid
"""

TABLES = """
    SELECT /* app.infra.doctor */
        relid::bigint AS id,
        format('%I.%I', schemaname, stat.relname) AS name,
        concat(schemaname, '.', stat.relname) AS name_in_plans,
        greatest(reltuples, n_live_tup)::bigint AS rows,
        n_live_tup AS live,
        n_dead_tup AS dead,
        n_tup_ins + n_tup_upd + n_tup_del AS written
    FROM pg_stat_user_tables AS stat JOIN pg_class ON pg_class.oid = relid
"""

CHECKPOINTS = """
    SELECT /* app.infra.doctor */
        num_requested AS requested,
        CASE WHEN pg_is_in_recovery() THEN 0
            ELSE pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0') END::bigint AS wal,
        pg_size_bytes(current_setting('max_wal_size')) AS most_wal
    FROM pg_stat_checkpointer
"""

DEADLOCKS = """
    SELECT /* app.infra.doctor */ deadlocks FROM pg_stat_database
    WHERE datname = current_database()
"""

SEQUENCES = """
    SELECT /* app.infra.doctor */
        format('%I.%I', schemaname, sequencename) AS sequence,
        quote_ident(schemaname) AS schema,
        has_sequence_privilege(pg_class.oid, 'SELECT, USAGE') AS may_read,
        -- A sequence may be wider than its column: the column's limit counts.
        last_value::float / least(max_value, (
            SELECT min(CASE atttypid WHEN 'int2'::regtype THEN 32767 ELSE 2147483647 END)
            FROM pg_attribute
            WHERE atttypid IN ('int2'::regtype, 'int4'::regtype) AND (attrelid, attnum) IN (
                SELECT adrelid, adnum FROM pg_depend  -- of a default
                JOIN pg_attrdef ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
                WHERE refclassid = 'pg_class'::regclass AND refobjid = pg_class.oid
                UNION SELECT refobjid, refobjsubid FROM pg_depend  -- of an identity
                WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'i'
            )
        )) AS fullest_sequence
    FROM pg_sequences
    JOIN pg_namespace ON nspname = schemaname
    JOIN pg_class ON relnamespace = pg_namespace.oid AND relname = sequencename
    WHERE increment_by > 0 AND NOT cycle AND has_schema_privilege(pg_namespace.oid, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
    ORDER BY fullest_sequence DESC NULLS LAST
"""

WAL = """
    SELECT /* app.infra.doctor */
        (
            SELECT max(pg_wal_lsn_diff(
                CASE WHEN pg_is_in_recovery()
                    THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END,
                restart_lsn
            )) FROM pg_replication_slots  -- a reader that hangs is `active`
        )::bigint AS kept_wal,
        current_setting('archive_mode') <> 'off'
            AND last_failed_time > coalesce(last_archived_time, '-infinity') AS archive_fails
    FROM pg_stat_archiver
"""

LIMITS = (
    "SET lock_timeout = '500ms';"  # direct
    "SET statement_timeout = '3s';"
    "SET plan_cache_mode = force_generic_plan;"
    "SET application_name = 'rung doctor'"
)

EXTENSION = (
    "start Postgres with shared_preload_libraries = 'pg_stat_statements', then as its superuser:"
    " CREATE EXTENSION pg_stat_statements"
)

# When the query for the server fails. Its role is not known then.
NO_SERVER = {"role": "", "slots": 1_000_000, "oldest_xid": None, "statements": None}
NOT_CALLED = {"calls": 0, "ms": 0.0, "rows": 0, "pages": 0}

type Idling = tuple[int, datetime]  # process, and since when
type Transaction = tuple[int, datetime | None]  # process, 0 if it is prepared, and its begin
# By the seconds since the begin. On a busy machine they are further apart than SAMPLE_SECONDS.
type Samples = dict[float, list[asyncpg.Record]]


class Counters(NamedTuple):
    """The counters at one moment. The difference of two is what happened in between."""

    statements: dict[int, asyncpg.Record] | None
    tables: dict[int, asyncpg.Record] | None
    checkpoints: asyncpg.Record | None
    deadlocks: asyncpg.Record | None


class Refused(Exception):
    """Postgres has no connection left, not even for the doctor."""

    remedy = "use a superuser's URL: Postgres keeps three connections for superusers"


class Limited(Refused):
    """The role or the database has reached its own limit."""

    remedy = "use a superuser's URL: a limit of a role or a database does not apply to it"


class Looking:
    def __init__(self, connection: asyncpg.Connection, say: Callable[[str], None]) -> None:
        self._connection = connection
        self._say = say
        self.skipped: list[Skipped] = []

    async def look(self, window: Window) -> Database:
        server = await self._server()
        before = await self._counters(server["statements"])
        began = time.monotonic()  # the wall clock may jump
        clients = await self._first("clients", CLIENTS)
        samples = await self._samples(began, window.seconds)
        after = await self._counters(server["statements"])
        window_ms = (time.monotonic() - began) * 1000
        self._say("plans")
        return Database(
            **_sessions(samples),
            **await self._fullest_sequence(server["role"]),
            **await self._first("WAL", WAL) or {},
            clients=clients[0] if clients else 0,
            slots=server["slots"],
            processors=window.processors,
            statements=await self._statements(before, after, window_ms),
            tables=_tables(before, after),
            requested_checkpoints=_checkpoints(before.checkpoints, after.checkpoints),
            deadlocks=_deadlocks(before.deadlocks, after.deadlocks),
            oldest_xid=server["oldest_xid"],
        )

    async def _server(self) -> Mapping[str, Any]:
        self._say("the server")
        server = await self._first("server", SERVER)
        if server is None:
            return NO_SERVER
        role = server["role"]
        if not server["sees_all"]:
            why = f"the role {role} may not see other roles' sessions"
            self._skip("sessions", why, f"GRANT pg_monitor TO {role}")
        if not server["statements"]:
            self._skip("statements", "pg_stat_statements is not installed", EXTENSION)
        return dict(server)

    async def _samples(self, began: float, seconds: float) -> Samples:
        samples: Samples = {}
        while (gone := time.monotonic() - began) < seconds and not self._connection.is_closed():
            self._say(f"sessions, {gone:.0f} of {seconds:.0f} s")
            if (sample := await self._all("sessions", SESSIONS)) is not None:
                samples[gone] = sample
            await asyncio.sleep(SAMPLE_SECONDS)
        if self._connection.is_closed():
            self._skip("sessions", "Postgres ended the doctor's connection", "run this again")
        return samples

    async def _fullest_sequence(self, role: str) -> Mapping[str, Any]:
        sequences = await self._all("sequences", SEQUENCES) or []
        unread = next((one for one in sequences if not one["may_read"]), None)
        if unread and role:
            remedy = f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {unread['schema']} TO {role}"
            self._skip("sequences", f"the role {role} may not read {unread['sequence']}", remedy)
        return sequences[0] if sequences else {}

    async def _counters(self, schema: str | None) -> Counters:
        sql = STATEMENTS.format(schema=schema, counted=plans.COUNTED)
        found = await self._all("statements", sql) if schema else None
        tables = await self._all("tables", TABLES)
        return Counters(
            None if found is None else {one["id"]: one for one in found},
            None if tables is None else {one["id"]: one for one in tables},
            await self._first("checkpoints", CHECKPOINTS),
            await self._first("deadlocks", DEADLOCKS),
        )

    async def _statements(
        self, before: Counters, after: Counters, window_ms: float
    ) -> list[Statement] | None:
        if before.statements is None or after.statements is None:
            return None
        found = []
        for key, now in after.statements.items():
            then = before.statements.get(key)
            if then is None or then["calls"] > now["calls"]:
                then = NOT_CALLED
            if calls := now["calls"] - then["calls"]:
                one = {
                    "sql": now["sql"],
                    "calls": calls,
                    # A statement that began before the window adds its whole time when it ends.
                    "total_ms": min(now["ms"] - then["ms"], calls * window_ms),
                    "rows": now["rows"] - then["rows"],
                    "pages": now["pages"] - then["pages"],
                }
                found.append(one)
        total = sum(one["total_ms"] for one in found) or 1.0
        found.sort(key=lambda one: -one["total_ms"])
        sizes = {one["name_in_plans"]: one["rows"] for one in (after.tables or {}).values()}
        statements = []
        for number, one in enumerate(found[:50]):
            share = one["total_ms"] / total
            is_planned = number < MOST_PLANS and share >= WORTH_A_PLAN
            scans = await self._scans(one["sql"], sizes) if is_planned else []
            one["sql"] = " ".join(one["sql"].split())[:2000]
            statements.append(Statement(**one, share=share, scans=scans))
        return statements

    async def _scans(self, sql: str, sizes: dict[str, int]) -> list[Scan]:
        try:
            found = await plans.scans(self._connection, sql)
        except POSTGRES_FAILS as error:
            self._skip("plans", reason_of(error), "run this again")
            return []
        return [
            Scan(
                kind=one.kind,
                table=f"{one.schema}.{one.table}",
                table_rows=sizes.get(f"{one.schema}.{one.table}", 0),
                filter=one.filter,
            )
            for one in found
            if one.filter
        ]

    async def _all(self, source: str, sql: str) -> list[asyncpg.Record] | None:
        try:
            records: list[asyncpg.Record] = await self._connection.fetch(sql)
            return records
        except POSTGRES_FAILS as error:
            not_loaded = "shared_preload_libraries" in str(error)
            self._skip(source, reason_of(error), EXTENSION if not_loaded else "run this again")
            return None

    async def _first(self, source: str, sql: str) -> asyncpg.Record | None:
        found = await self._all(source, sql)
        return found[0] if found else None

    def _skip(self, source: str, why: str, remedy: str) -> None:
        if all(one.source != source for one in self.skipped):
            self.skipped.append(Skipped(source=source, why=why, remedy=remedy))


def gap(source: str, error: NotConnected | Refused, remedy: str) -> Skipped:
    return Skipped(source=source, why=reason_of(error), remedy=remedy)


async def look_at_postgres(
    settings: DatabaseSettings, window: Window, say: Callable[[str], None] = lambda _: None
) -> tuple[Database, list[Skipped]]:
    """Raises Limited, Refused, NotConnected."""
    try:
        connection = await connect(
            settings, settings.direct_url, read_only=True, statement_cache_size=0
        )
    except NotConnected as error:
        if getattr(error.__cause__, "sqlstate", None) == TOO_MANY_CONNECTIONS:
            if OWN_LIMIT in str(error):
                raise Limited(str(error)) from error
            raise Refused("no connection was left") from error
        raise
    try:
        await connection.execute(LIMITS)  # direct
        looking = Looking(connection, say)
        return await looking.look(window), looking.skipped
    finally:
        connection.terminate()


def _sessions(samples: Samples) -> dict[str, Any]:
    def mean(counts: Callable[[asyncpg.Record], bool]) -> float:
        return fmean(sum(map(counts, one)) for one in samples.values()) if samples else 0.0

    def is_idle(one: asyncpg.Record) -> bool:
        return (one["state"] or "").startswith("idle in transaction")

    idle: dict[Idling, list[float]] = defaultdict(list)
    blockers: set[Idling] = set()
    for sample in samples.values():
        blocking = {pid for one in sample for pid in one["blockers"] or ()}
        for one in filter(is_idle, sample):
            since = one["pid"], one["state_change"]
            idle[since].append(one["seconds"])
            if one["pid"] in blocking:
                blockers.add(since)
    # A session that was long idle in one sample and gone in the others: Postgres' clock has jumped.
    long = {one: max(found) for one, found in idle.items() if len(found) > 1 or len(samples) == 1}
    return {
        "samples": len(samples),
        "active": mean(lambda one: one["state"] == "active"),
        "on_processor": mean(lambda one: one["state"] == "active" and one["type"] is None),
        "in_io": mean(lambda one: one["state"] == "active" and _is_disk(one)),
        "waits_for_table": mean(lambda one: _waits(one, "relation")),
        "waits_for_row": mean(lambda one: _waits(one, "transactionid", "tuple")),
        "waits_for_advisory": mean(lambda one: _waits(one, "advisory")),
        "idle_in_transaction": mean(is_idle),
        "longest_blocker_s": _longest_blocker(samples),
        "longest_idle_s": max(long.values(), default=0.0),
        "longest_idle_blocker_s": max(
            (seconds for one, seconds in long.items() if one in blockers), default=0.0
        ),
    }


def _longest_blocker(samples: Samples) -> float:
    """For how long one transaction blocked others and waited for nobody, in seconds. Its age says
    less: most of it may be the wait for its turn."""
    seen: dict[Transaction, list[float]] = defaultdict(list)
    for gone, sample in samples.items():
        begins = {one["pid"]: one["xact_start"] for one in sample}
        waiting = {one["pid"] for one in sample if one["blockers"]}
        for pid in {pid for one in sample for pid in one["blockers"] or ()} - waiting:
            seen[pid, begins.get(pid)].append(gone)
    return max((at[-1] - at[0] for at in seen.values()), default=0.0)


def _is_disk(session: asyncpg.Record) -> bool:
    return session["type"] == "IO" or (session["event"] or "").startswith("WAL")


def _waits(session: asyncpg.Record, *events: str) -> bool:
    return session["type"] == "Lock" and session["event"] in events


def _tables(before: Counters, after: Counters) -> list[Table] | None:
    if after.tables is None:
        return None
    then = before.tables or {}
    found = [
        Table(
            name=one["name"],
            live=one["live"],
            dead=one["dead"],
            written=increase(then[key]["written"] if key in then else 0, one["written"]),
        )
        for key, one in after.tables.items()
    ]
    return sorted(found, key=lambda table: -max(table.dead, table.written))[:50]


def _checkpoints(before: asyncpg.Record | None, after: asyncpg.Record | None) -> int | None:
    """Those that WAL can explain. DROP DATABASE and a base backup request one too."""
    if before is None or after is None:
        return None
    # Postgres requests one after a quarter to a half of max_wal_size.
    by_wal: int = 4 * (after["wal"] - before["wal"]) // after["most_wal"]
    return min(increase(before["requested"], after["requested"]), max(by_wal, 0) + 1)


def _deadlocks(before: asyncpg.Record | None, after: asyncpg.Record | None) -> int | None:
    return increase(before[0], after[0]) if before and after else None


def increase(before: int, after: int) -> int:
    """A counter that was reset in the window counts from 0."""
    return after - before if after >= before else after
