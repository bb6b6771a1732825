# Rung's file: advancing to another stage may change it.
"""`make slow-queries`, on a real Postgres."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.infra import environment
from app.infra.slow_queries import __main__ as slow_queries
from app.infra.slow_queries.__main__ import ServerSettings
from app.infra.slow_queries.report import Report
from dev import ports, postgres, postgres_settings
from tests.infra.conftest import connected, fetch_value, run_python, until

# Slow: only a change of the report can break these tests, and they take seconds.
pytestmark = pytest.mark.slow

VISITS = """
    CREATE TABLE visits (id int PRIMARY KEY, guest int NOT NULL, page text NOT NULL);
    INSERT INTO visits SELECT n, n, 'home' FROM generate_series(1, {rows}) AS n;
    CREATE INDEX ix_visits_guest ON visits (guest);
    ANALYZE visits
"""
# Only this database's statements: other workers use the same server.
RESET = """
    SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = current_database()
"""
OF_A_GUEST = "SELECT id, page FROM visits WHERE guest = $1"


@pytest.fixture
def database(empty_database: str) -> str:
    """URL of an empty database whose statements are counted, set as DATABASE_URL."""
    run(empty_database, "CREATE EXTENSION pg_stat_statements")
    return empty_database


@pytest.fixture
def guest_role(database: str) -> Iterator[str]:
    """Yields the name of a new role that may only connect. Its password is its name."""
    name = f"guest_{uuid4().hex}"
    run(database, f"CREATE ROLE {name} LOGIN PASSWORD '{name}'")
    yield name
    run(database, f"DROP OWNED BY {name}; DROP ROLE {name}")


def run(url: str, statement: str, *arguments: object, times: int = 1) -> None:
    """Uses a separate connection, because Postgres publishes its counts when it closes."""

    async def run() -> None:
        async with connected(url) as connection:
            if not arguments and times == 1:
                await connection.execute(statement)
                return
            for _ in range(times):
                await connection.fetch(statement, *arguments)

    asyncio.run(run())


def report(limit: int = 10) -> Report:
    settings = environment.read(ServerSettings)
    return asyncio.run(slow_queries.make_report(settings, limit))


def printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *options: str
) -> str:
    monkeypatch.setattr(sys, "argv", ["slow_queries", *options])
    slow_queries.main()
    return capsys.readouterr().out


def refusal(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "argv", ["slow_queries"])
    with pytest.raises(SystemExit) as stopped:
        slow_queries.main()
    return str(stopped.value)


def test_without_its_index_a_table_and_the_statement_that_needs_it_are_named_first(
    database: str,
) -> None:
    run(database, VISITS.format(rows=100_000))
    run(database, "CREATE TABLE rooms AS SELECT n FROM generate_series(1, 20000) AS n")
    run(database, "SELECT count(*) FROM rooms WHERE n > $1", 5, times=110)
    run(database, "DROP INDEX ix_visits_guest")
    run(database, OF_A_GUEST, 5, times=120)

    found = report()

    assert [table.table for table in found.sequential_tables] == ["visits", "rooms"]
    assert [use.sql for use in found.sequential_tables[0].statements] == [OF_A_GUEST]
    assert found.sequential_tables[0].statements[0].filter == "(visits.guest = $1)"
    first, second = found.statements[:2]
    assert (first.sql, first.calls, first.rows) == (OF_A_GUEST, 120, 120)
    assert 1 > first.share > second.share > 0
    assert first.share / second.share == pytest.approx(first.total_ms / second.total_ms)
    assert first.total_ms == pytest.approx(120 * first.mean_ms)


def test_behind_a_pooler_it_asks_postgres_itself(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_POOLED", "true")
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1:1/app")
    monkeypatch.setenv("DATABASE_READ_URL", "postgresql://nobody@127.0.0.1:1/app_read")
    monkeypatch.setenv("DATABASE_DIRECT_URL", database)

    assert report().database == urlsplit(database).path.removeprefix("/")


def test_with_its_index_nothing_is_named(database: str) -> None:
    run(database, VISITS.format(rows=100_000))
    run(database, OF_A_GUEST, 5, times=120)

    found = report()

    assert not found.sequential_tables
    assert not found.unused_indexes
    assert not found.duplicate_indexes
    assert not found.invalid_indexes
    assert OF_A_GUEST in [statement.sql for statement in found.statements]


@pytest.mark.parametrize(
    ("statement", "times"),
    [
        ("SELECT count(*) FROM visits WHERE page > $1", 30),  # a job, every night for a month
        ("SELECT FROM visits WHERE page > $1 LIMIT 1", 150),  # ends at its first row
    ],
)
def test_a_cheap_sequential_scan_is_not_reported(database: str, statement: str, times: int) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, statement, "a", times=times)

    assert not report().sequential_tables


def test_a_table_of_which_index_scans_read_more_is_not_named(database: str) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, "SELECT FROM visits WHERE page = $1 AND id > 1500 LIMIT 1", "home", times=110)
    run(database, "SELECT sum(guest) FROM visits WHERE id < 2000 AND page = $1", "home", times=110)

    assert not report().sequential_tables


def test_a_nightly_job_among_the_index_scans_of_visitors_names_no_table(database: str) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, "SELECT count(*) FROM visits WHERE page > $1", "a", times=105)
    run(
        database,
        """
        SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_memoize = off;
        SELECT count(page) FROM generate_series(1, 110000) AS n JOIN visits ON id = n;
        """,
    )

    assert not report().sequential_tables


def test_a_statement_that_cannot_be_planned_again_is_listed_without_the_tables_it_reads(
    database: str,
) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, "DROP INDEX ix_visits_guest")
    since = "SELECT FROM visits WHERE guest = $1 AND now() - interval '1 day' < now()"
    run(database, since, 5, times=120)

    [visits] = report().sequential_tables

    assert (visits.table, visits.statements) == ("visits", [])


def test_an_index_that_is_read_only_to_drop_most_rows_is_named(database: str) -> None:
    """Without its own index, Postgres may read another one backwards and filter."""
    run(database, VISITS.format(rows=100_000))
    run(database, "DROP INDEX ix_visits_guest; UPDATE visits SET guest = id / 100")
    run(database, "ANALYZE visits")
    newest = "SELECT id FROM visits WHERE guest = $1 ORDER BY id DESC LIMIT 1"
    run(database, newest, 5, times=20)

    found = report()

    assert not found.sequential_tables
    [scan] = found.filtering_scans
    assert (scan.table, scan.index, scan.filter) == ("visits", "visits_pkey", "(visits.guest = $1)")
    assert scan.pages_per_call > 500
    assert "visits_pkey on visits: " in found.as_text()

    run(database, "CREATE INDEX ix_visits_guest_id ON visits (guest, id)")
    run(database, RESET)
    run(database, newest, 5, times=20)
    assert not report().filtering_scans


def test_a_replica_that_does_not_answer_is_named_and_the_rest_is_reported(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, VISITS.format(rows=10_000))
    nobody = f"127.0.0.1:{ports.unused()}"
    monkeypatch.setenv("DATABASE_REPLICA_URLS", f"postgresql://app:secret@{nobody}/app")

    found = report()

    assert found.statements
    [replica] = found.replicas
    assert replica.server == nobody
    assert "no connection could be opened" in str(replica.problem)
    assert f"Replica {nobody}: Postgres: no connection" in found.as_text()
    assert f"Replica {nobody}: Postgres: no connection" in refusal(monkeypatch)
    assert "secret" not in found.as_json()


def test_an_unused_index_is_named(database: str) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, "CREATE UNIQUE INDEX unique_pages ON visits (page, id)")
    run(database, "CREATE TABLE guests AS SELECT DISTINCT guest AS id FROM visits")
    run(database, "ALTER TABLE guests ADD PRIMARY KEY (id)")
    run(database, "ALTER TABLE visits ADD FOREIGN KEY (guest) REFERENCES guests")
    run(database, "CREATE INDEX ix_visits_page ON visits (page)")
    run(database, "CREATE TABLE small (n int); CREATE INDEX ix_small_n ON small (n)")

    [unused] = report().unused_indexes

    assert (unused.index, unused.table) == ("ix_visits_page", "visits")
    assert unused.bytes > 8192


@pytest.mark.parametrize(
    ("needless", "needed"),
    [
        ("(guest)", "(guest)"),
        ("(guest)", "(guest, page)"),
        ("(guest) WHERE id > 5", "(guest, page) WHERE id > 5"),
        ("(lower(page))", "(lower(page), guest)"),
        ("(guest) INCLUDE (page)", "(guest, page)"),
        ("USING hash (guest)", "USING hash (guest)"),
    ],
)
def test_an_index_that_another_index_makes_needless_is_named(
    database: str, needless: str, needed: str
) -> None:
    run(database, "CREATE TABLE visits (id int, guest int, page text)")
    run(database, f"CREATE INDEX kept ON visits {needed}")
    run(database, f"CREATE INDEX needless ON visits {needless}")

    [duplicate] = report().duplicate_indexes

    assert (duplicate.index, duplicate.table, duplicate.kept) == ("needless", "visits", "kept")


def test_an_index_beside_a_primary_key_of_the_same_column_is_named(database: str) -> None:
    run(database, "CREATE TABLE visits (id int PRIMARY KEY)")
    run(database, "CREATE UNIQUE INDEX needless ON visits (id)")

    [duplicate] = report().duplicate_indexes

    assert (duplicate.index, duplicate.kept) == ("needless", "visits_pkey")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("INDEX one ON visits (page)", "INDEX other ON visits (guest, page)"),
        ("INDEX one ON visits (page)", "INDEX other ON visits (page text_pattern_ops)"),
        ("INDEX one ON visits (page)", "INDEX other ON visits (lower(page))"),
        ("INDEX one ON visits (guest)", "INDEX other ON visits (guest) WHERE id > 5"),
        ("INDEX one ON visits (guest)", "INDEX other ON visits USING hash (guest)"),
        ("INDEX one ON visits (guest) INCLUDE (page)", "INDEX other ON visits (guest, id)"),
        ("UNIQUE INDEX one ON visits (id)", "INDEX other ON visits (id, guest)"),
        ("INDEX one ON visits (guest)", "INDEX other ON guests (guest)"),
    ],
)
def test_indexes_that_differ_are_no_duplicates(database: str, one: str, other: str) -> None:
    run(database, "CREATE TABLE visits (id int, guest int, page text)")
    run(database, "CREATE TABLE guests (guest int)")
    run(database, f"CREATE {one}; CREATE {other}")

    assert not report().duplicate_indexes


def test_an_invalid_index_is_named_with_the_command_that_repairs_it(database: str) -> None:
    run(database, "CREATE TABLE visits (guest int); INSERT INTO visits VALUES (1), (1)")
    run(database, "CREATE INDEX ix_visits_guest ON visits (guest)")
    with pytest.raises(asyncpg.UniqueViolationError):
        run(database, 'CREATE UNIQUE INDEX CONCURRENTLY "One Visit" ON visits (guest)')
    with pytest.raises(asyncpg.UniqueViolationError):
        run(database, 'REINDEX INDEX CONCURRENTLY "One Visit"')
    run(database, "TRUNCATE visits")

    assert not report().duplicate_indexes  # an invalid index makes no other index needless
    commands = {one.index: one.command for one in report().invalid_indexes}
    assert commands == {
        '"One Visit"': 'REINDEX INDEX CONCURRENTLY "One Visit"',
        '"One Visit_ccnew"': 'DROP INDEX CONCURRENTLY "One Visit_ccnew"',
    }

    for command in commands.values():
        run(database, command)
    assert not report().invalid_indexes


def test_an_index_that_is_being_built_is_not_invalid(database: str) -> None:
    run(database, "CREATE TABLE visits AS SELECT 1 AS guest")
    waiting = "SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting for writers%'"

    async def report_during_the_build() -> Report:
        writing, building, watching = [await asyncpg.connect(database) for _ in range(3)]
        await writing.execute("BEGIN; INSERT INTO visits VALUES (2)")
        build = asyncio.create_task(building.execute("CREATE INDEX CONCURRENTLY ON visits (guest)"))
        try:
            for _ in range(500):
                if await watching.fetch(waiting):
                    break
                await asyncio.sleep(0.01)
            return await slow_queries.make_report(environment.read(ServerSettings), 10)
        finally:
            await writing.close()
            await build
            await building.close()
            await watching.close()

    assert not asyncio.run(report_during_the_build()).invalid_indexes


def test_only_this_databases_statements_without_those_of_commands_are_listed(database: str) -> None:
    elsewhere = urlsplit(database)._replace(path="/postgres").geturl()
    run(elsewhere, "SELECT 'elsewhere' WHERE $1", True)
    run(database, "SELECT 'here', 1 WHERE $1", True)
    run(database, "SELECT /* app.infra.doctor */ 1 WHERE $1", True)
    run(database, "SET pg_stat_statements.track_utility = on; BEGIN; CREATE TABLE t (n int); END")
    report()

    assert [statement.sql for statement in report().statements] == ["SELECT $2, $3 WHERE $1"]


def test_the_limit_counts_statements_and_each_share_is_still_of_all(database: str) -> None:
    run(database, "SELECT 'quick'")
    run(database, "SELECT 'slow' FROM pg_sleep(0.02)")

    [slowest] = report(limit=1).statements

    assert slowest.sql == "SELECT $1 FROM pg_sleep($2)"
    assert 0.5 < slowest.share < 1


def test_planning_a_statement_does_not_run_it(database: str) -> None:
    run(database, VISITS.format(rows=10_000))
    run(database, "CREATE SEQUENCE asked")
    run(database, "SELECT nextval('asked') FROM visits WHERE page = $1 LIMIT 1", "x", times=110)
    run(database, "DELETE FROM visits WHERE page = $1", "x")

    deleting = report().sequential_tables[0].statements[-1]

    assert deleting.sql == "DELETE FROM visits WHERE page = $1"
    with pytest.raises(asyncpg.UniqueViolationError):
        run(database, "INSERT INTO visits VALUES (1, 1, 'x')")


def test_the_reports_connection_cannot_write(database: str) -> None:
    async def write() -> None:
        settings = environment.read(ServerSettings)
        async with slow_queries.session(settings, settings.direct_url) as connection:
            await connection.execute("CREATE TABLE written (n int)")

    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        asyncio.run(write())


@pytest.mark.usefixtures("postgres_ends_statements")
def test_a_statement_of_the_report_that_takes_too_long_ends_it_with_one_line(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_STATEMENT_SECONDS", "0.1")
    monkeypatch.setattr(slow_queries, "SERVER", "SELECT pg_sleep(5)")

    said = refusal(monkeypatch)

    assert said.startswith("Postgres: canceling statement due to statement timeout\n")


@pytest.mark.usefixtures("full_report")
def test_the_json_report_has_the_same_facts_as_the_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    same = report()  # another look may find other counts
    monkeypatch.setattr(slow_queries, "reported", lambda *_: same)

    text = printed(capsys, monkeypatch)
    object_ = json.loads(printed(capsys, monkeypatch, "--json"))

    assert Report(**object_).as_text() + "\n" == text
    assert list(object_) == [
        "database",
        "statements_since",
        "statements_forgotten",
        "statements",
        "tables_since",
        "sequential_tables",
        "filtering_scans",
        "unused_indexes",
        "duplicate_indexes",
        "invalid_indexes",
        "replicas",
    ]


@pytest.fixture
def full_report(database: str) -> None:
    """A database with one example of each thing that the report can name."""
    run(database, VISITS.format(rows=10_000))
    run(database, "SELECT FROM visits WHERE page = $1", "x", times=110)
    run(database, "CREATE INDEX again ON visits (guest)")
    with pytest.raises(asyncpg.UniqueViolationError):
        run(database, "CREATE UNIQUE INDEX CONCURRENTLY broken ON visits (page)")


@pytest.mark.usefixtures("full_report")
def test_the_report_names_everything_in_lines_that_fit_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")

    lines = printed(capsys, monkeypatch).splitlines()

    assert max(map(len, lines)) <= 100
    text = "\n".join(lines)
    for said in (
        "visits, 10,000 rows: 11",  # CREATE INDEX scans as well
        " rows, 0 index scans 0\n",
        " ms:  SELECT FROM visits WHERE page = $1\n",
        "looks for  (visits.page = $1)\n",
        "ix_visits_guest on visits, ",
        "again on visits, ",
        "ix_visits_guest does its work",
        "broken on visits: REINDEX INDEX CONCURRENTLY broken;",
    ):
        assert said in text


def test_a_statement_with_odd_characters_does_not_break_the_table(
    database: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = 'SELECT $1::int /* 100 % {0} \\ \x1b[31m */ AS "Größe\n\t☃"'
    run(database, sql, 1)
    monkeypatch.setenv("COLUMNS", "200")

    text = printed(capsys, monkeypatch)
    found = json.loads(printed(capsys, monkeypatch, "--json"))

    assert 'SELECT $1::int /* 100 % {0} \\ [31m */ AS "Größe ☃"\n' in text
    assert sql in [statement["sql"] for statement in found["statements"]]


def test_a_library_that_is_not_loaded_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(postgres.TEMPORARY_SETTINGS, "shared_preload_libraries")
    with postgres.temporary_server(f"rung-test-{uuid4().hex}") as url:
        monkeypatch.setenv("DATABASE_URL", url)
        said = refusal(monkeypatch)

    assert "ALTER SYSTEM SET shared_preload_libraries = pg_stat_statements, auto_explain;" in said


def test_an_extension_that_is_not_there_is_named_with_the_command(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(monkeypatch)

    assert name_of(empty_database) in said
    run(empty_database, said.splitlines()[-1])
    report()


def test_a_missing_privilege_is_named_with_the_command(
    database: str, guest_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_DIRECT_URL", as_role(database, guest_role, guest_role))

    said = refusal(monkeypatch)

    run(database, said.splitlines()[-1])
    run(database, "SELECT 'of another role' WHERE $1", True)
    assert "SELECT $2 WHERE $1" in [statement.sql for statement in report().statements]


def test_tables_that_a_role_may_not_read_are_still_named(
    database: str, guest_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(database, f"GRANT pg_monitor TO {guest_role}")
    run(database, VISITS.format(rows=10_000))
    run(database, "SELECT FROM visits WHERE page = $1", "x", times=110)
    monkeypatch.setenv("DATABASE_DIRECT_URL", as_role(database, guest_role, guest_role))

    assert [table.table for table in report().sequential_tables] == ["visits"]


def test_a_wrong_password_is_reported_in_words_that_do_not_show_it(
    database: str, guest_role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_DIRECT_URL", as_role(database, guest_role, "hunter2"))

    said = refusal(monkeypatch)

    reason = f'password authentication failed for user "{guest_role}"'
    assert said.startswith(f"Postgres: no connection could be opened: {reason}\n")
    assert "hunter2" not in said


def test_without_postgres_the_command_ends_in_two_lines(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_DIRECT_URL", "postgresql://app:hunter2@127.0.0.1:1/app")

    process = run_python("-m", "app.infra.slow_queries", "--json")

    assert (process.returncode, process.stdout) == (1, "")
    assert process.stderr.startswith("Postgres: no connection could be opened: ")
    assert process.stderr.count("Connect call failed") == 1
    assert process.stderr.count("\n") == 2
    assert "hunter2" not in process.stderr


def test_postgres_runs_with_the_settings_of_the_stage(database: str) -> None:
    async def in_force() -> dict[str, str]:
        async with connected(database) as connection:
            return {
                name: await connection.fetchval("SELECT current_setting($1)", name)
                for name in postgres_settings.SETTINGS
            }

    for_many_tests = {"max_connections": postgres.TEMPORARY_SETTINGS["max_connections"]}
    assert asyncio.run(in_force()) == postgres_settings.SETTINGS | for_many_tests


def name_of(database: str) -> str:
    return urlsplit(database).path.removeprefix("/")


def as_role(url: str, role: str, password: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=f"{role}:{password}@{parts.hostname}:{parts.port}").geturl()


def test_counts_begin_again_when_a_session_crashes(monkeypatch: pytest.MonkeyPatch) -> None:
    async def crash(url: str) -> datetime:
        """Returns the time before it."""
        connection = await asyncpg.connect(url)
        now: datetime = await connection.fetchval("SELECT clock_timestamp()")
        os.kill(await connection.fetchval("SELECT pg_backend_pid()"), signal.SIGKILL)
        await until(lambda: has_begun_again(url, now))
        return now

    async def has_begun_again(url: str, crashed: datetime) -> bool:
        try:
            counts = "SELECT stats_reset > $1 FROM pg_stat_bgwriter"
            return await fetch_value(url, counts, crashed) is True
        except (OSError, asyncpg.PostgresError):
            return False

    with postgres.temporary_server(f"rung-test-{uuid4().hex}") as url:
        run(url, "CREATE EXTENSION pg_stat_statements")
        run(url, "CHECKPOINT")
        crashed = asyncio.run(crash(url))
        monkeypatch.setenv("DATABASE_URL", url)
        assert report().tables_since > crashed
