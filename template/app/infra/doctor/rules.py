# Rung's file: advancing to another stage may change it.
"""The rules, in order: the first one that applies is the verdict.

docs/guide/doctor.md says where each threshold comes from.
"""

from functools import wraps

from app.infra.doctor.capabilities import CAPABILITIES
from app.infra.doctor.evidence import Database, Evidence, Requests, Route, Scan, Statement
from app.infra.doctor.finding import (
    BUSY,
    Finding,
    Judgement,
    Rule,
    busy,
    is_busy,
    is_busy_with_reads,
    keeps_idle,
    read_share,
)

# If one of these is missing, the doctor names no stage, because the cause may be there.
NEEDED_TO_ADVANCE = frozenset(
    {"sessions", "statements", "plans", "requests", "process lines"}
    | {capability.name for capability in CAPABILITIES}
    | {f"statements of the {capability.name}" for capability in CAPABILITIES}
)
FEWEST_REQUESTS = 50
MOST_KEPT_WAL = 2 << 30


def judge(evidence: Evidence, rules: tuple[Rule, ...] | None = None) -> Judgement:
    findings = [found for rule in rules or RULES if (found := rule(evidence))]
    if not findings:
        return Judgement(verdict=_nothing_found(evidence))
    verdict, *others = findings
    missing = sorted({one.source for one in evidence.skipped} & NEEDED_TO_ADVANCE)
    if verdict.advance_to and verdict.rule != "connections" and missing:
        verdict = Finding(
            rule="not-known",
            text=f"it may be: {verdict.text}",
            do=f"bring the missing sources ({', '.join(missing)}), then run this again",
            evidence=verdict.evidence,
        )
    # A second finding never names a stage: the first one may be its cause.
    also = [one for one in others if not one.advance_to and one.text != verdict.text]
    return Judgement(verdict=verdict, also=also)


def clocks(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if database is None:
        return None
    if (xid := database.oldest_xid or 0) > 1_000_000_000:
        return Finding(
            rule="clocks",
            text="transaction ids run out",
            do="find what holds the oldest one, then VACUUM FREEZE",
            evidence=[f"{xid:,} of 2,000,000,000 are used (pg_database)"],
        )
    if (used := database.fullest_sequence or 0) > 0.75:
        name = database.sequence or "NAME"
        return Finding(
            rule="clocks",
            text="a sequence runs out",
            do=f"make its column bigint first, then ALTER SEQUENCE {name} AS bigint",
            evidence=[f"{used:.0%} of {database.sequence or 'it'} is used (pg_sequences)"],
        )
    if (kept := database.kept_wal or 0) > MOST_KEPT_WAL:
        return Finding(
            rule="clocks",
            text="a replication slot keeps WAL until the disk is full",
            do="if it is active, see why its reader hangs or is slow; otherwise start the reader,"
            " or pg_drop_replication_slot",
            evidence=[f"{kept >> 20:,} MiB (pg_replication_slots)"],
        )
    if database.archive_fails:
        return Finding(
            rule="clocks",
            text="the WAL archive fails, so Postgres keeps WAL until the disk is full",
            do="repair archive_command: Postgres' log says why it fails",
            evidence=["last_failed_time is later than last_archived_time (pg_stat_archiver)"],
        )
    return None


def unavailable(evidence: Evidence) -> Finding | None:
    """Does not apply while the event loop is late: the app gets its servers' answers too late."""
    late = evidence.process and evidence.process.loop_p90_ms >= 100
    return None if late else unavailable_to_a_late_app(evidence)


def unavailable_to_a_late_app(evidence: Evidence) -> Finding | None:
    away = [name for name in evidence.unavailable if not _answers_all(name, evidence.requests)]
    if not away:
        return None
    return Finding(
        rule="unavailable",
        text=f"the app cannot reach {', '.join(away)}",
        do="read the reason in the app's log line `unavailable`: docs/guide/unavailable.md",
        evidence=["unavailable in the answer of /ready"],
    )


def _answers_all(server: str, requests: Requests | None) -> bool:
    """A busy database answers /ready too late, but no request fails."""
    return server == "database" and bool(requests and requests.db_ms and not requests.errors)


def connections(evidence: Evidence) -> Finding | None:
    database, requests = evidence.database, evidence.requests
    found = []
    if evidence.refused:
        found.append("Postgres refused the doctor: no connection was left (53300)")
    if requests and requests.refused:
        found.append(f"{requests.refused} lines of the log say that no connection was left")
    if database and database.clients >= 0.9 * database.slots:
        found.append(f"{database.clients} of {database.slots} connections are open")
    if not found:
        return _own_limit(evidence)
    return Finding(
        rule="connections",
        text="Postgres' connections run out",
        do="smaller pools first; then a pooler in front of Postgres",
        evidence=found,
        advance_to=2 if evidence.stage == 1 else None,
    )


def _own_limit(evidence: Evidence) -> Finding | None:
    """Postgres may have connections left, so no pooler is needed yet."""
    found = []
    if evidence.limited:
        found.append("Postgres refused the doctor: too many connections of its role or database")
    if evidence.requests and evidence.requests.limited:
        found.append(f"{evidence.requests.limited} lines of the log say the same of the app")
    if not found:
        return None
    return Finding(
        rule="connections",
        text="the role or the database has reached its own connection limit",
        do="make the pools smaller, or raise it: ALTER ROLE (or DATABASE) … CONNECTION LIMIT",
        evidence=found,
    )


def ddl_lock(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if not database or database.waits_for_table < max(0.3 * database.active, 0.5):
        return None
    return Finding(
        rule="ddl-lock",
        text="a change of a table blocks everybody who uses it",
        do="end that statement, and give migrations a lock_timeout",
        evidence=[_sessions(database.waits_for_table, database, "wait for the lock of a table")],
    )


def idle_in_tx(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if not database or (
        database.longest_idle_blocker_s <= 2
        and database.longest_idle_s <= 5
        and database.idle_in_transaction <= 4
    ):
        return None
    return Finding(
        rule="idle-in-tx",
        text="transactions stay open while the app does something else",
        do="move the slow call out of the function that has a WriteSession",
        evidence=[
            f"{database.idle_in_transaction:.1f} sessions were idle in a transaction, one for"
            f" {max(database.longest_idle_s, database.longest_idle_blocker_s):.1f} s"
            " (pg_stat_activity)"
        ],
    )


def hot_row(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if not database:
        return None
    is_row = database.waits_for_row >= database.waits_for_advisory
    waiting = database.waits_for_row if is_row else database.waits_for_advisory
    if waiting < max(0.3 * database.active, 0.5):
        return None
    waits = _sessions(waiting, database, f"wait for {'a row' if is_row else 'an advisory lock'}")
    if (seconds := database.longest_blocker_s) > 2:
        what = "the rows" if is_row else "the advisory lock"
        return Finding(
            rule="hot-row",
            text=f"one transaction holds {what} that others wait for",
            do="end it (docs/guide/unavailable.md finds it), and change many rows in batches",
            evidence=[waits, f"it blocked others for {seconds:.0f} s or more (pg_blocking_pids)"],
        )
    if not is_row:
        return Finding(
            rule="hot-row",
            text="many requests wait for the same advisory lock",
            do="do less while you hold it, or take one key for each thing",
            evidence=[waits],
        )
    # Each stops two sessions for 1 s (deadlock_timeout), and all that wait for their rows.
    if (deadlocks := database.deadlocks or 0) >= max(evidence.window_s / 10, 1):
        return Finding(
            rule="hot-row",
            text="transactions lock the same rows in different orders",
            do="lock rows in one order, such as ORDER BY id FOR UPDATE",
            evidence=[waits, f"{deadlocks} deadlocks in the window (pg_stat_database)"],
        )
    return Finding(
        rule="hot-row",
        text="many requests change the same row",
        do="lock it last in the transaction, or insert rows and sum them",
        evidence=[waits],
    )


def index(evidence: Evidence) -> Finding | None:
    for statement in (one for server in evidence.servers for one in server.statements or []):
        if statement.share >= 0.2 and statement.calls >= 10:
            for scan in statement.scans:
                if _lacks_index(statement, scan):
                    return Finding(
                        rule="index",
                        text=f"an index is missing on {scan.table}",
                        do=f"an index for {scan.filter}, built concurrently",
                        evidence=[_reads(statement), statement.sql],
                    )
    return None


def _lacks_index(statement: Statement, scan: Scan) -> bool:
    if scan.table_rows < 10_000:
        return False
    rows, pages = statement.rows / statement.calls, statement.pages / statement.calls
    if scan.kind == "Seq Scan":
        return rows < 0.01 * scan.table_rows
    # The plan reads an index for its order and discards almost all rows.
    return pages >= 500 and pages >= 20 * max(rows, 1)


def n_plus_1(evidence: Evidence) -> Finding | None:
    requests = evidence.requests
    for route in requests.routes if requests else []:
        is_costly = requests and route.total_ms >= 0.2 * requests.total_ms
        if is_costly and (route.median_calls or 0) >= 10:
            return _asks_for_each_row(route, "read them with one statement")
    return None


def cheap_n_plus_1(evidence: Evidence) -> Finding | None:
    """The last rule: the cost grows with the data, but it is not the bottleneck yet."""
    routes = evidence.requests.routes if evidence.requests else []
    statements = sum(route.requests * (route.median_calls or 0) for route in routes)
    for route in routes:
        calls = route.median_calls or 0
        if calls >= 10 and route.requests >= 10 and calls * route.requests >= 0.5 * statements:
            return _asks_for_each_row(route, "when you next edit it, read them with one statement")
    return None


def _asks_for_each_row(route: Route, do: str) -> Finding:
    return Finding(
        rule="n-plus-1",
        text=f"{route.route} asks the database once for each row",
        do=f"{do}: column = any_(bindparam('ids'))",
        evidence=[
            f"{route.median_calls or 0:.0f} statements a request, {route.requests} requests,"
            f" p95 {route.p95_ms:.0f} ms (request log, db_calls)"
        ],
    )


def vacuum(evidence: Evidence) -> Finding | None:
    tables = evidence.database.tables if evidence.database else None
    for table in tables or []:
        time = sum(
            one.share
            for one in _statements(evidence)
            if table.name.rpartition(".")[2].strip('"') in one.sql
        )
        if table.dead >= 10_000 and table.dead > 2 * table.live and time >= 0.2:
            return Finding(
                rule="vacuum",
                text=f"dead rows fill {table.name}",
                do="end the oldest transaction, which holds them, then VACUUM",
                evidence=[
                    f"{table.dead:,} dead rows, {table.live:,} live ones; {time:.0%} of the"
                    " database's time goes there (pg_stat_user_tables)"
                ],
            )
    return None


def checkpoints(evidence: Evidence) -> Finding | None:
    database = evidence.database
    # One checkpoint has no interval: a short window may contain it by chance.
    if not database or (database.requested_checkpoints or 0) < 2 or not database.active:
        return None
    every = evidence.window_s / (database.requested_checkpoints or 1)
    # One session writes a page and others wait for that page, so their wait event is not IO.
    held_up = database.active - database.on_processor
    held_up -= database.waits_for_row + database.waits_for_advisory + database.waits_for_table
    if every >= 30 or held_up < max(0.25 * database.active, 0.5):
        return None
    return Finding(
        rule="checkpoints",
        text="checkpoints come too often",
        do="raise max_wal_size",
        evidence=[
            f"one each {every:.1f} s, because max_wal_size is used up (pg_stat_checkpointer)",
            _sessions(held_up, database, "wait for the disk, or for a session that does"),
        ],
    )


def disk(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if not database or database.in_io < max(0.5 * database.active, 0.5):
        return None
    return Finding(
        rule="disk",
        text="the database waits for its disk",
        do="a faster disk for writes, more memory for reads",
        evidence=[_sessions(database.in_io, database, "wait for the disk")],
    )


def writes(evidence: Evidence) -> Finding | None:
    database = evidence.database
    if not database or not is_busy(database) or not _statements(evidence):
        return None
    if is_busy_with_reads(database):
        return None
    return Finding(
        rule="writes",
        text="the database's processor is busy with writes",
        do="write in batches, drop needless indexes, then a larger machine",
        evidence=[
            busy(database),
            f"{1 - read_share(database):.0%} of its time is writes",
            *_most_written(database),
        ],
    )


def _most_written(database: Database) -> list[str]:
    tables = database.tables or []
    written = sum(table.written for table in tables)
    return [
        f"{table.written / written:.0%} of the written rows go to {table.name}"
        " (pg_stat_user_tables)"
        for table in tables
        if table.written > 0.5 * written
    ]


def cache(evidence: Evidence) -> Finding | None:
    server, repeats = _busy_with_reads(evidence), _repeats(evidence)
    if not server or repeats is None or repeats < 0.5:
        return None
    return Finding(
        rule="cache",
        text="the database answers the same reads again and again",
        do="put @max_stale on those queries; then add the cache",
        evidence=[busy(server), f"{repeats:.0%} of the @max_stale reads repeat (process lines)"],
        advance_to=3 if evidence.stage < 3 else None,
    )


def replicas(evidence: Evidence) -> Finding | None:
    server, repeats = _busy_with_reads(evidence), _repeats(evidence)
    if not server:
        return None
    if repeats is None:
        return Finding(
            rule="not-known",
            text="the database is busy with reads; whether they repeat is not known",
            do="put @max_stale on the busiest queries, and run this again in an hour",
            evidence=[busy(server)],
        )
    if repeats >= 0.5:
        return None
    return Finding(
        rule="replicas",
        text="the database's processor is busy with reads that differ",
        do=f"a larger machine first; then {'one more' if evidence.readers else 'a'} replica",
        evidence=[busy(server), f"only {repeats:.0%} of the @max_stale reads repeat"],
        advance_to=2 if evidence.stage == 1 else None,
    )


def processors_not_known(evidence: Evidence) -> Finding | None:
    most = max((one.on_processor for one in evidence.servers if not one.processors), default=0.0)
    if most < BUSY:
        return None
    return Finding(
        rule="not-known",
        text=f"{most:.1f} sessions keep a processor of the database busy",
        do="say how many processors it has: --database-cpus N",
    )


def app(evidence: Evidence) -> Finding | None:
    process = evidence.process
    if not process or process.wanted is None:
        return None
    is_late = process.loop_p90_ms >= 100
    if not (is_late or (process.loop_p90_ms >= 20 and process.wanted >= 0.85)):
        return None
    seen = (
        f"it got {process.got:.0%} of a processor and wanted {process.wanted:.0%};"
        f" the loop is {process.loop_p90_ms:.0f} ms late (p90, process lines)"
    )
    if process.wanted < 0.6:
        return Finding(
            rule="app-blocked",
            text="something blocks the event loop of the app",
            do="make that call async, or run it in a thread",
            evidence=[seen],
        )
    if process.got < process.wanted / 2:
        return Finding(
            rule="starved",
            text="the app does not get the processor that it needs",
            do="a larger quota, or fewer other programs on that machine",
            evidence=[seen],
        )
    return Finding(
        rule="app-cpu",
        text="the app's processor is the limit",
        do="more worker processes" if evidence.stage < 3 else "more copies",
        evidence=[seen],
        advance_to=4 if evidence.stage == 3 else None,
    )


def pool(evidence: Evidence) -> Finding | None:
    process = evidence.process
    idle = all(map(keeps_idle, (evidence.database, *evidence.others.values())))
    if not process or process.waiting_lines < 0.5 or not idle:
        return None
    return Finding(
        rule="pool",
        text="requests wait for a connection, and the database is idle",
        do="raise DATABASE_READ_POOL or DATABASE_WRITE_POOL; hold no connection while you wait",
        evidence=[f"{process.waiting_lines:.0%} of the process lines show a pool with waiters"],
    )


def _of_each(rule: Rule) -> Rule:
    """Judges the other databases too, each by its own numbers alone."""

    @wraps(rule)
    def judged(evidence: Evidence) -> Finding | None:
        if found := rule(evidence):
            return found
        for name, own in evidence.of_others():
            if found := rule(own):
                text = f"{name}: {found.text}"
                return found.model_copy(update={"text": text, "advance_to": None})
        return None

    return judged


RULES: tuple[Rule, ...] = (
    _of_each(clocks),
    _of_each(connections),
    unavailable,
    _of_each(ddl_lock),
    _of_each(idle_in_tx),
    _of_each(hot_row),
    _of_each(index),
    n_plus_1,
    _of_each(vacuum),
    _of_each(checkpoints),
    _of_each(disk),
    *(rule for capability in CAPABILITIES for rule in capability.rules),
    processors_not_known,
    _of_each(writes),
    cache,
    replicas,
    app,
    unavailable_to_a_late_app,
    pool,
    cheap_n_plus_1,
)


def _nothing_found(evidence: Evidence) -> Finding:
    requests = evidence.requests
    calls = sum(statement.calls for statement in _statements(evidence))
    if requests and requests.errors >= max(0.01 * requests.count, 1):
        return Finding(
            rule="not-known",
            text="requests fail, and no rule says why",
            do="read the log lines of level warning and error: docs/guide/unavailable.md",
            evidence=[f"{requests.errors} of {requests.count} answers are 5xx (request log)"],
        )
    if max(requests.count if requests else 0, calls) < FEWEST_REQUESTS:
        return Finding(
            rule="too-little-evidence",
            text=f"fewer than {FEWEST_REQUESTS} requests in the window",
            do="run this again under load: make load, or at the busiest hour",
        )
    if requests and requests.p95_ms > 300:
        return Finding(
            rule="not-known",
            text="requests are slow, and no rule says why",
            do="read the slow routes' logs, or traces",
            evidence=[f"p95 {requests.p95_ms:.0f} ms (request log)"],
        )
    database = evidence.database
    if database and database.statements is None and database.active >= 0.5:
        return Finding(
            rule="not-known",
            text="the database works, and its statements were not counted",
            do="let Postgres count them (pg_stat_statements), then run this again",
            evidence=[f"{database.active:.1f} sessions are active (pg_stat_activity)"],
        )
    return Finding(rule="stay", text="nothing", do="nothing")


def _statements(evidence: Evidence) -> list[Statement]:
    return (evidence.database.statements if evidence.database else None) or []


def _reads(statement: Statement) -> str:
    return (
        f"{statement.calls:,} calls of {statement.mean_ms:.1f} ms ({statement.share:.0%} of the"
        f" database's time) read {statement.pages / statement.calls:,.0f} pages to return"
        f" {statement.rows / statement.calls:,.0f} rows (pg_stat_statements, plan)"
    )


def _sessions(count: float, database: Database, do: str) -> str:
    return f"{count:.1f} of {database.active:.1f} active sessions {do} (pg_stat_activity)"


def _busy_with_reads(evidence: Evidence) -> Database | None:
    return next(filter(is_busy_with_reads, evidence.servers), None)


def _repeats(evidence: Evidence) -> float | None:
    """None if not measured: no query has @max_stale, or no such query ran."""
    process = evidence.process
    if not process or process.stale_reads < 100:
        return None
    return process.stale_repeats / process.stale_reads
