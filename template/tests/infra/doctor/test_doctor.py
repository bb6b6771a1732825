# Rung's file: advancing to another stage may change it.
"""The doctor on a real Postgres: it finds each fault, and works when a source is missing."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import unicodedata
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import pytest

from app.infra.connections import DatabaseSettings
from app.infra.doctor import looking
from app.infra.doctor.__main__ import Postgres, look_at_primary, table
from app.infra.doctor.evidence import Database, Evidence, Skipped
from app.infra.doctor.finding import Finding, Window
from app.infra.doctor.looking import look_at_postgres
from app.infra.doctor.rules import judge
from dev import postgres
from tests.infra.conftest import execute_sql, fetch_value, run_python, until

pytestmark = pytest.mark.slow

VISITS = """
    CREATE TABLE visits (id int PRIMARY KEY, guest int NOT NULL, page text NOT NULL);
    INSERT INTO visits SELECT n, n, 'home' FROM generate_series(1, 100000) AS n;
    ANALYZE visits
"""
OF_A_GUEST = "SELECT id, page FROM visits WHERE guest = $1"

type Work = Callable[[asyncpg.Connection], Awaitable[object]]


@pytest.fixture
async def database(empty_database: str) -> str:
    """URL of a database with a table of visits, whose statements are counted."""
    await execute_sql(empty_database, f"CREATE EXTENSION pg_stat_statements; {VISITS}")
    return empty_database


async def look(url: str, seconds: float = 2) -> tuple[Database, list[Skipped]]:
    return await look_at_postgres(settings_of(url), Window(seconds, 8))


def settings_of(url: str) -> DatabaseSettings:
    return DatabaseSettings.model_validate({"url": url})


def finding(database: Database) -> Finding:
    seen = Evidence(stage=1, at=datetime.now(UTC), window_s=2, database=database)
    return judge(seen).verdict


def verdict(database: Database) -> str:
    return finding(database).rule


@asynccontextmanager
async def at_work(url: str, *works: Work) -> AsyncGenerator[None]:
    """Runs each of these on its own connection, until the block ends."""

    name = f"at work {uuid4().hex}"
    have_begun = """SELECT count(*) = $2 FROM pg_stat_activity
        WHERE application_name = $1 AND query <> ''"""

    async def work_on(work: Work) -> None:
        connection = await asyncpg.connect(url, server_settings={"application_name": name})
        try:
            await work(connection)
        finally:
            connection.terminate()

    tasks = [asyncio.create_task(work_on(work)) for work in works]
    await until(lambda: fetch_value(url, have_begun, name, len(works)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def reads_of_a_guest(connection: asyncpg.Connection) -> None:
    while True:
        await connection.fetch(OF_A_GUEST, 7)


async def changes_one_row(connection: asyncpg.Connection) -> None:
    while True:
        async with connection.transaction():
            await connection.execute("UPDATE visits SET page = page WHERE id = 1")
            await connection.execute("SELECT pg_sleep(0.05)")


async def takes_one_advisory_lock(connection: asyncpg.Connection) -> None:
    while True:
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(7)")
            await connection.execute("SELECT pg_sleep(0.05)")


def changes_rows(*ids: int) -> Work:
    async def work(connection: asyncpg.Connection) -> None:
        await connection.execute("SET deadlock_timeout = '200ms'")
        while True:
            with suppress(asyncpg.DeadlockDetectedError):
                async with connection.transaction():
                    for one in ids:
                        await connection.execute("UPDATE visits SET page = page WHERE id = $1", one)
                        await connection.execute("SELECT pg_sleep(0.01)")

    return work


async def holds_the_table(connection: asyncpg.Connection) -> None:
    await connection.execute("BEGIN; LOCK visits IN ACCESS SHARE MODE; SELECT pg_sleep(60)")


async def alters(connection: asyncpg.Connection) -> None:
    await connection.execute("SET statement_timeout = '60s'")
    await connection.execute("ALTER TABLE visits ADD COLUMN note text")


async def holds_all_rows(connection: asyncpg.Connection) -> None:
    await connection.execute("BEGIN; UPDATE visits SET page = page; SELECT pg_sleep(60)")


async def idles_in_a_transaction(connection: asyncpg.Connection) -> None:
    async with connection.transaction():
        await connection.execute("UPDATE visits SET page = page WHERE id = 1")
        await asyncio.sleep(60)


async def test_a_missing_index_is_named_with_its_statement(database: str) -> None:
    async with at_work(database, reads_of_a_guest):
        found, skipped = await look(database)

    assert verdict(found) == "index"
    assert skipped == []
    assert found.statements is not None
    assert found.statements[0].sql == OF_A_GUEST
    assert found.statements[0].scans[0].filter == "(visits.guest = $1)"


async def test_a_missing_index_on_a_table_whose_name_needs_quotes_is_named(database: str) -> None:
    async def reads_of_a_user(connection: asyncpg.Connection) -> None:
        while True:
            await connection.fetch('SELECT id, page FROM "user" WHERE guest = $1', 7)

    await execute_sql(database, 'ALTER TABLE visits RENAME TO "user"')
    async with at_work(database, reads_of_a_user):
        found, _ = await look(database)

    assert finding(found).text == "an index is missing on public.user"


async def test_with_the_index_the_same_load_is_healthy(database: str) -> None:
    await execute_sql(database, "CREATE INDEX ix_visits_guest ON visits (guest)")
    async with at_work(database, reads_of_a_guest):
        found, _ = await look(database)

    assert verdict(found) == "stay"


async def test_a_checkpoint_that_no_wal_explains_is_not_counted(database: str) -> None:
    async def requests_checkpoints(connection: asyncpg.Connection) -> None:
        while True:  # as DROP DATABASE and a base backup do
            await connection.execute("CHECKPOINT")

    requested = "SELECT num_requested FROM pg_stat_checkpointer"
    before = await fetch_value(database, requested)
    async with at_work(database, requests_checkpoints):
        found, _ = await look(database)

    assert await fetch_value(database, requested) > before + 2
    assert found.requested_checkpoints == 1


async def test_when_statements_wait_behind_an_alter_the_verdict_is_the_lock(database: str) -> None:
    async with (
        at_work(database, holds_the_table),
        at_work(database, alters),
        at_work(database, *[reads_of_a_guest] * 6),
    ):
        found, _ = await look(database)

    assert verdict(found) == "ddl-lock"


@pytest.mark.parametrize(
    ("sessions", "said"),
    [
        ([changes_one_row] * 6, "many requests"),
        ([changes_rows(1, 2), changes_rows(2, 1)] * 3, "different orders"),
        ([takes_one_advisory_lock] * 6, "the same advisory lock"),
    ],
)
async def test_a_lock_that_every_session_takes_is_the_verdict(
    database: str, sessions: list[Work], said: str
) -> None:
    async with at_work(database, *sessions):
        found, _ = await look(database)

    assert verdict(found) == "hot-row"
    assert said in finding(found).text


async def test_one_long_transaction_that_others_wait_for_is_the_verdict(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = looking.SESSIONS.replace("FROM pg_stat", "FROM pg_sleep(1.2), pg_stat", 1)
    monkeypatch.setattr(looking, "SESSIONS", late)  # as on a busy machine

    async with at_work(database, holds_all_rows), at_work(database, *[changes_one_row] * 6):
        found, _ = await look(database, 8)

    assert "one transaction" in finding(found).text


async def test_when_statements_wait_for_an_idle_transaction_it_is_the_verdict(
    database: str,
) -> None:
    async with at_work(database, idles_in_a_transaction), at_work(database, *[changes_one_row] * 6):
        found, _ = await look(database, 4)

    assert verdict(found) == "idle-in-tx"


async def test_wal_that_waits_for_a_reader_is_seen(database: str) -> None:
    slot = f"left_{uuid4().hex}"
    await execute_sql(database, f"SELECT pg_create_physical_replication_slot('{slot}', true)")
    try:
        found, _ = await look(database, 1)
    finally:
        await execute_sql(database, f"SELECT pg_drop_replication_slot('{slot}')")

    assert found.kept_wal is not None


async def test_wal_that_waits_for_a_reader_that_hangs_is_seen(
    database: str, tmp_path: Path
) -> None:
    slot = f"hangs_{uuid4().hex}"
    await execute_sql(database, f"SELECT pg_create_physical_replication_slot('{slot}', true)")
    reader = await asyncio.create_subprocess_exec(
        *(postgres.binaries() / "pg_receivewal", "-n", "-D", tmp_path, "-S", slot, "-d", database),
        env=postgres.environment(),
    )
    state = "SELECT active = $2 FROM pg_replication_slots WHERE slot_name = $1"
    try:
        await until(lambda: fetch_value(database, state, slot, True))
        reader.send_signal(signal.SIGSTOP)
        found, _ = await look(database, 1)
    finally:
        reader.kill()
        await until(lambda: fetch_value(database, state, slot, False))
        await execute_sql(database, f"SELECT pg_drop_replication_slot('{slot}')")

    assert found.kept_wal is not None


async def test_an_archive_that_is_off_does_not_fail(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("""
        CREATE TABLE pg_stat_archiver AS
            SELECT now() AS last_failed_time, NULL::timestamptz AS last_archived_time
    """)
    await connection.close()

    found, _ = await look(f"{database}?search_path=public,pg_catalog", 1)

    assert found.archive_fails is False


@pytest.mark.parametrize(
    "sequence",
    [
        "CREATE TABLE tickets (id serial)",
        # Its column was to become bigint first.
        "CREATE TABLE tickets (id int GENERATED ALWAYS AS IDENTITY);"
        " ALTER SEQUENCE tickets_id_seq AS bigint",
        # As pg_dump writes a serial column of before Postgres 10.
        "CREATE SEQUENCE tickets_id_seq;"
        " CREATE TABLE tickets (id int DEFAULT nextval('tickets_id_seq'))",
    ],
)
async def test_a_sequence_that_runs_out_is_named(database: str, sequence: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute(f"{sequence}; SELECT setval('tickets_id_seq', 2000000000)")
    await connection.close()

    found, _ = await look(database, 1)

    assert "bigint first, then ALTER SEQUENCE public.tickets_id_seq" in finding(found).do


async def test_a_sequence_that_begins_again_does_not_run_out(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE SEQUENCE ring AS smallint CYCLE; SELECT setval('ring', 32000)")
    await connection.close()

    found, _ = await look(database, 1)

    assert verdict(found) != "clocks"


async def test_a_sequence_that_the_role_may_not_read_is_reported(database: str) -> None:
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE SEQUENCE tickets_id_seq")
    await connection.close()

    hidden = "CREATE SCHEMA others; CREATE SEQUENCE others.numbers"
    await execute_sql(database, hidden)
    async with guest(database, "IN ROLE pg_monitor") as url:
        _, skipped = await look(url, 1)

    assert [one.source for one in skipped] == ["sequences"]
    assert "GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO guest_" in skipped[0].remedy


@pytest.mark.parametrize(
    "query",
    ["SERVER", "SESSIONS", "CLIENTS", "STATEMENTS", "TABLES", "CHECKPOINTS", "SEQUENCES", "WAL"],
)
async def test_each_query_may_fail_alone(
    database: str, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(looking, query, "SELECT 1 / 0")

    _, skipped = await look(database, 1)

    assert [one.why for one in skipped] == ["division by zero"]


async def test_without_the_extension_the_remedy_is_named(empty_database: str) -> None:
    _, [skipped] = await look(empty_database, 1)

    assert skipped.source == "statements"
    assert "CREATE EXTENSION" in skipped.remedy


def test_without_the_library_of_the_extension_the_remedy_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def looked(url: str) -> list[Skipped]:
        connection = await asyncpg.connect(url)
        await connection.execute("CREATE EXTENSION pg_stat_statements")
        await connection.close()
        return (await look(url, 1))[1]

    monkeypatch.delitem(postgres.TEMPORARY_SETTINGS, "shared_preload_libraries")
    with postgres.temporary_server(f"rung-test-{uuid4().hex}") as url:
        [skipped] = asyncio.run(looked(url))

    assert skipped.source == "statements"
    assert "start Postgres with shared_preload_libraries" in skipped.remedy


@asynccontextmanager
async def guest(database: str, options: str = "") -> AsyncGenerator[str]:
    """Yields the URL of a new role that may only connect."""
    name = f"guest_{uuid4().hex}"
    await execute_sql(database, f"CREATE ROLE {name} LOGIN PASSWORD '{name}' {options}")
    url = urlsplit(database)
    try:
        yield url._replace(netloc=f"{name}:{name}@{url.hostname}:{url.port}").geturl()
    finally:
        await execute_sql(database, f"DROP OWNED BY {name}; DROP ROLE {name}")


async def test_a_role_with_too_few_rights_is_told_what_to_grant(database: str) -> None:
    async with guest(database) as url:
        _, skipped = await look(url, 1)

    assert any("GRANT pg_monitor TO guest_" in one.remedy for one in skipped)


async def test_a_limit_of_the_role_is_named_and_is_no_reason_to_advance(database: str) -> None:
    async with guest(database, "CONNECTION LIMIT 0") as url:
        seen = await look_at_primary(settings_of(url), Window(1, 8))

    evidence = Evidence(
        stage=1,
        at=datetime.now(UTC),
        window_s=1,
        refused=seen.refused,
        limited=seen.limited,
        skipped=seen.skipped,
    )
    verdict = judge(evidence).verdict
    assert (verdict.rule, verdict.advance_to) == ("connections", None)
    assert "ALTER ROLE" in verdict.do
    assert "too many connections for role" in seen.skipped[0].why


def test_when_no_connection_is_left_a_superuser_gets_the_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def looked(superuser: str) -> tuple[Postgres, Postgres]:
        async with guest(superuser, "IN ROLE pg_monitor, pg_use_reserved_connections") as url:
            held: list[asyncpg.Connection] = []
            with suppress(asyncpg.TooManyConnectionsError):
                while True:
                    held.append(await asyncpg.connect(url))
            refused = await look_at_primary(settings_of(url), Window(1, 8))
            seen = await look_at_primary(settings_of(superuser), Window(1, 8))
            for connection in held:
                connection.terminate()
        return refused, seen

    monkeypatch.setitem(postgres.TEMPORARY_SETTINGS, "max_connections", "8")
    with postgres.temporary_server(f"rung-test-{uuid4().hex}") as superuser:
        refused, seen = asyncio.run(looked(superuser))

    assert refused.refused
    assert "superuser" in refused.skipped[0].remedy
    assert seen.database is not None


async def test_the_doctor_writes_nothing_and_waits_for_no_lock(database: str) -> None:
    async with at_work(database, holds_the_table), at_work(database, alters):
        async with asyncio.timeout(50):  # The lock is held for 60.
            await look(database, 1)


def doctor(*options: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "app.infra.doctor", *map(str, options), env=environment or None)


def test_the_command_keeps_evidence_and_judges_it_again(
    empty_database: str, tmp_path: Path
) -> None:
    kept, page = tmp_path / "evidence.json", tmp_path / "page.html"

    looked = doctor("--seconds", "1", "--json", "--evidence", kept, "--html", page)
    again = doctor("--from", kept, "--json")

    assert looked.returncode == again.returncode == 3
    assert json.loads(looked.stdout) == json.loads(again.stdout)
    assert json.loads(looked.stdout)["verdict"]["rule"] == "too-little-evidence"
    assert "<script" not in page.read_text()
    assert "rung doctor: not known" in page.read_text()
    assert str(urlsplit(empty_database).hostname) not in kept.read_text()


def test_many_files_of_evidence_give_a_table(tmp_path: Path) -> None:
    for name in ("shop", "blog"):
        seen = Evidence(
            stage=1, at=datetime.now(UTC), window_s=1, service=name, refused=name == "shop"
        )
        (tmp_path / f"{name}.json").write_text(seen.model_dump_json())

    shown = doctor("--from", *sorted(tmp_path.glob("*.json")))

    assert shown.returncode == 0
    _, blog, shop = shown.stdout.splitlines()
    assert blog.startswith("blog")
    assert "not known" in blog
    assert "advance to stage 2" in shop


def test_the_columns_of_the_table_begin_at_one_place_when_names_are_hangul() -> None:
    now = datetime.now(UTC)
    names = ("shop", "상점", unicodedata.normalize("NFD", "상점 é"))
    found = [Evidence(stage=1, at=now, window_s=1, service=name) for name in names]
    rows = table([Path("evidence.json")] * 3, found).splitlines()
    assert [row.partition("  ")[0] for row in rows] == ["file", *names]
    spaces = [re.findall("  +", row)[0] for row in rows]
    assert list(map(len, spaces)) == [4, 4, 4, 2]


def test_a_missing_log_is_reported_before_the_doctor_measures() -> None:
    refused = doctor("--seconds", "3600", "--log", "none.log")

    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "doctor: argument --log: there is no file none.log. All options: --help\n"
    )


def test_evidence_of_a_later_stage_is_skipped_with_a_reason(tmp_path: Path) -> None:
    seen = Evidence(
        stage=4, at=datetime.now(UTC), window_s=1, capabilities={"a queue": {"waiting": 7}}
    )
    kept = tmp_path / "evidence.json"
    kept.write_text(seen.model_dump_json())

    shown = doctor("--from", kept)

    assert "a queue: this stage has no rules for it" in shown.stdout


def test_a_wrong_password_is_told_in_one_line(empty_database: str) -> None:
    url = urlsplit(empty_database)
    wrong = url._replace(netloc=f"app:wrong@{url.hostname}:{url.port}").geturl()

    shown = doctor("--seconds", "1", DATABASE_URL=wrong)

    assert (shown.returncode, shown.stderr) == (3, "")
    [line] = [line for line in shown.stdout.splitlines() if "Skipped  sessions" in line]
    assert "password authentication failed" in line


async def test_a_connection_lost_during_the_measurement_is_reported(database: str) -> None:
    looking = asyncio.create_task(look(database, 300))
    # Other workers run it too, in other databases.
    end = """SELECT bool_or(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE (datname, application_name) = (current_database(), 'rung doctor')
        AND state = 'idle'"""
    await until(lambda: fetch_value(database, end))
    _, skipped = await asyncio.wait_for(looking, 300)

    assert "sessions" in [one.source for one in skipped]


async def test_a_connection_that_ends_as_a_query_begins_is_reported() -> None:
    class EndingConnection:
        async def fetch(self, _: str) -> object:
            raise asyncpg.InternalClientError("cannot switch to state 11")

        def is_closed(self) -> bool:
            return True

    looks = looking.Looking(EndingConnection(), lambda _: None)
    await looks.look(Window(1, 8))

    assert {"server", "sessions"} <= {one.source for one in looks.skipped}


async def test_an_interrupted_measurement_has_no_verdict(empty_database: str) -> None:
    doctor = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "app.infra.doctor", "--seconds", "3600"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    looks = """SELECT count(*) FROM pg_stat_activity
        WHERE (datname, application_name) = (current_database(), 'rung doctor')"""
    await until(lambda: fetch_value(empty_database, looks))
    doctor.send_signal(signal.SIGINT)

    assert await doctor.communicate() == (b"", b"")
    assert doctor.returncode == 130


def test_watching_shows_look_after_look_until_it_is_interrupted(empty_database: str) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-u", "-m", "app.infra.doctor", "--watch", "--seconds", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout
    looks = 0
    for line in watching.stdout:
        looks += line.startswith("rung doctor: not known")
        if looks == 2:
            break
    watching.send_signal(signal.SIGINT)
    _, complaint = watching.communicate(timeout=300)

    # The code of the last look: nothing was under load, so nothing is known.
    assert (watching.returncode, complaint) == (3, "")
