"""The runbooks of an operator: their commands are executed as they stand on the page."""

import importlib
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from checking import driven
from conftest import REPO, Render
from variants import VARIANTS

VISITORS = 8
FAULTS = ("failed", "logged_out", "lost", "stale", "revived")
LIVE_CLIMB = REPO / "benchmarks" / "live_climb"
RUNBOOKS_FOLDER = REPO / "template/docs/runbooks"
RUNBOOKS = sorted(RUNBOOKS_FOLDER.rglob("*.md"))

# By each drive: pages, their sections and parts. What the live climb executes is not listed here.
EXECUTED = {
    "runbook_backup": """
        backup.md: 1. do, 1. check, 2. do, 3. do, 3. check, 4. do
        rows.md: 1. do, 2. do, 2. check
    """,
    "operators_year": """
        rotation.md: 1. do, 1. check, 1. back, 2. do, 2. check, 2. back, 3. do, 3. check, 3. back
        pooling/rotation.md: 1. do, 1. check, 3. do, 3. check
        cache/rotation.md: 1. do, 1. back, 2. do, 2. check, 3. do
        s3/rotation.md: 1. do, 2. do
        replicas/rotation.md: 1. do, 1. check
        replicas/failover.md: 1. check, 2. do, 2. check, 3. do, 3. check
    """,
    "runbook_upgrade": """
        upgrade-postgres.md: 1. do, 1. check, 2. do, 2. check, 2. back, 3. do, 3. check
    """,
    "runbook_move": """
        module_databases/move-a-module.md: 1. do, 2. do, 2. check, 2. back, 3. do, 3. check
        module_databases/move-a-module.md: 3. back, 4. do
        module_databases/its-server.md: 1. do, 1. check, 2. do
        replicas/add-a-replica.md: 1. do
        replicas/failover.md: 1. check, 2. do, 2. check, 3. do, 3. check
        upgrade-postgres.md: 1. do, 1. check, 2. do, 2. check, 2. back, 3. do, 3. check
        backup.md: 1. do, 1. check, 2. do, 3. do, 3. check, 4. do
    """,
    "runbook_pause": """
        module_databases/move-by-pausing.md: 1. do, 2. do, 2. check, 2. back
        module_databases/rotation.md: 1. do, 1. check, 1. back, 2. do, 3. do, 3. check
    """,
    "runbook_losses": """
        redis_sessions/upgrade-valkey.md: 1. do, 1. check, 1. back, 2. do, 2. check, 2. back
        redis_sessions/upgrade-valkey.md: 3. do, 3. check
        cache/upgrade-valkey.md: 1. do, 1. check, 1. back, 2. do, 2. check, 2. back
        redis_sessions/loss.md: 1. do, 1. check, 2. do, 2. check, 3. do, 3. check
        copies/loss-of-a-zone.md: 1. do, 1. check, 2. do, 2. check, 2. back, 3. do, 3. check
        copies/loss-of-a-zone.md: 4. do, 4. check
        s3/loss.md: 1. do, 1. check, 2. do, 2. check, 2. back, 3. do, 3. check
    """,
    "runbook_schema": """
        schema-changes.md: 1. do, 1. back, 1. check, 2. do, 3. do
    """,
}
# Only shorten this list.
NOT_EXECUTED = {
    ("backup.md", "4. do"): "Amazon's: no S3 server here keeps versions",
    ("backup.md", "On do"): "Amazon's: RDS",
    ("s3/move-the-files.md", "1. do"): "Amazon's: policies of a bucket",
    ("s3/rotation.md", "1. do"): "Amazon's: keys of a user",
    ("s3/rotation.md", "3. do"): "Amazon's: keys of a user",
}


def parts_of(page: Path, *fences: str) -> set[tuple[str, str]]:
    """The page, and the first word of each section with the part of each block."""
    runbook = importlib.import_module("runbook")
    name = page.relative_to(RUNBOOKS_FOLDER).as_posix()
    if f"```{fences[0]}\n" not in page.read_text(encoding="utf-8"):
        return set()
    return {
        (name, f"{one.section.split()[0]} {one.part}")
        for one in runbook.blocks(page, *fences)
        if one.section and one.page == page.name
    }


def executed(drive: str) -> set[tuple[str, str]]:
    pages = [line.strip().split(": ") for line in EXECUTED[drive].strip().splitlines()]
    return {(page, part) for page, parts in pages for part in parts.split(", ")}


def assert_all_are_executed(report: dict[str, Any], drive: str) -> None:
    assert executed(drive) <= {
        (page, part) for page, _, part in (one.partition(" ") for one in report["executed"])
    }


def assert_moved_unnoticed(report: dict[str, Any]) -> None:
    assert report["own"].startswith("orders has its own database")
    assert report["orders"] > 0
    assert report["lost orders"] == 0
    for name, people in report["people"].items():
        assert {fault: people[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), report
        assert people["requests"] > 0, name


def test_each_command_of_a_runbook_is_executed_or_its_reason_is_listed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(LIVE_CLIMB)
    journey = importlib.import_module("journey")
    in_bash = {one for page in RUNBOOKS for one in parts_of(page, "bash")}
    in_bash |= {one for page in RUNBOOKS for one in parts_of(page, "sql")}
    elsewhere = {one for page in RUNBOOKS for one in parts_of(page, "console")}
    by_drives = {one for drive in EXECUTED for one in executed(drive)}
    climbed = {page for leg in journey.LEGS for page in leg.pages}
    for page in list(climbed):
        text = (RUNBOOKS_FOLDER / page).read_text(encoding="utf-8")
        climbed |= set(re.findall(r"(?m)^Follow \[.*\]\((.*)\)", text))

    not_executed = {one for one in in_bash - by_drives if one[0] not in climbed}
    assert not_executed | elsewhere == set(NOT_EXECUTED)
    assert by_drives <= in_bash, "a list names a part that its page does not have"


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_runbook_is_a_page_of_at_most_120_lines(page: Path) -> None:
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 120


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_each_variable_in_the_commands_of_a_runbook_is_explained(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the page or on one that it names. A section that is run alone has its own small names."""
    monkeypatch.syspath_prepend(LIVE_CLIMB)
    blocks = importlib.import_module("runbook").blocks
    text = page.read_text(encoding="utf-8")
    if "```bash" not in text:
        return
    links = [(page.parent / link).resolve() for link in re.findall(r"\]\(([\w./-]+\.md)\)", text)]
    pages = [page, RUNBOOKS_FOLDER / "deploy.md", *(link for link in links if link in RUNBOOKS)]
    prose = " ".join(re.sub("(?s)```.*?```", "", one.read_text()) for one in pages)
    named = re.findall(r"[A-Z][A-Z_0-9]+", " ".join(re.findall("`[^`]*`", prose)))
    there = [one for known in pages if "```bash" in known.read_text() for one in blocks(known)]
    functions = "\n".join(one.commands for one in there if not one.section)
    assigned = r"\b(\w+)=|\b(?:for|coproc|read(?: -\w+(?: \d+)?)*) (\w+)"

    for one in there:
        if one.page != page.name:
            continue
        own = re.findall(assigned, f"{functions}\n{one.commands}")
        used = set(re.findall(r"\$\{?!?([a-zA-Z]\w+)", one.commands))
        unknown = used - {name for names in own for name in names} - {*named, "PATH", "PWD"}
        assert not unknown, f"{one.name}: {unknown}"


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_commands_take_the_names_and_passwords_of_another_business(
    render: Render, tmp_path: Path
) -> None:
    made = render({"stage": 4, "replica_routing": True, "project_slug": "tea-house"})
    assert driven(made, tmp_path / "tea-house", LIVE_CLIMB, "runbook_names") == {"followed": True}


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_backup_is_rehearsed_and_restored_to_a_moment_while_rows_are_written(
    render: Render, tmp_path: Path
) -> None:
    if shutil.which("barman-cloud-backup") is None and os.environ.get("CI") != "true":
        pytest.skip("barman-cloud-backup is missing: apt-get install barman-cli-cloud")
    report = driven(render({"stage": 4}), tmp_path / "shop", LIVE_CLIMB, "runbook_backup")
    assert_all_are_executed(report, "runbook_backup")

    rehearsed, written_before = report["rehearsed of those written before"]
    assert rehearsed >= written_before
    assert re.search(r"Loss window: \d+ s\.", report["rehearsal"])
    assert "pg_amcheck finds no damaged table or index" in report["rehearsal"]
    assert report["left over"] == []
    # Rows that a mistake deleted are back, beside those written since.
    assert report["rows that are not back"] == 0
    # After a recovery, they are back and later writes are gone.
    assert report["rehearsed moment"] == report["recovered"] > 0
    assert (report["missing"], report["too new"]) == (0, 0)
    assert report["a new replica follows"]
    # A server is lost with its disk. All archived writes are back, also after a first recovery.
    assert report["archived and missing"] == 0
    assert report["lost"] > 0


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_runbooks_of_an_operators_year_are_followed_and_no_client_notices(
    render: Render, tmp_path: Path
) -> None:
    made = render({"stage": 4, "replica_routing": True})
    report = driven(made, tmp_path / "shop", LIVE_CLIMB, "operators_year")
    assert_all_are_executed(report, "operators_year")

    for name, people in report["people"].items():
        assert {fault: people[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), report
        assert people["requests"] > 0, name
    # Registered, then at the limit and unlocked: the account, and then its address.
    assert report["an owner is answered"] == [201, 429, 200, 429, 200]
    undone = report["rotation"].pop("undone")
    assert len(undone) == 4
    assert all(undone.values()), undone
    assert report["rotation"] == {"left of the old": [], "the old role is refused": True}
    if report["seconds"]["replicas/failover.md 1."] < 3:
        assert report["people"]["a planned failover"]["announced"] == 0
    assert report["primary lost"]["listed as lost"] >= report["primary lost"]["lost"] == 3


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_postgres_changes_to_the_next_major_and_back_and_no_write_is_lost(
    render: Render, tmp_path: Path
) -> None:
    made = render({"stage": 4, "replica_routing": True})
    drives = (LIVE_CLIMB, "operators_year", "runbook_upgrade")
    report = driven(made, tmp_path / "shop", *drives)
    assert_all_are_executed(report, "runbook_upgrade")

    assert report["refused without a key"]
    assert report["versions"] == ["17", "18", "17"]
    assert report["tickets"] > 0
    assert (report["lost tickets"], report["doubled tickets"], report["lost orders"]) == (0, 0, 0)
    waited = report["longest wait of a write"]
    if max(waited.values()) < 3:
        assert report["refused tickets"] == []
    for name, people in report["people"].items():
        assert {fault: people[fault] for fault in FAULTS} == dict.fromkeys(FAULTS, 0), report
        assert people["requests"] > 0, name
        if name != "it follows" and max(waited.values()) < 3:
            assert people["announced"] == 0, report


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_a_module_moves_to_its_own_server_which_fails_over_is_upgraded_and_recovered(
    render: Render, tmp_path: Path
) -> None:
    drives = (REPO / "benchmarks" / "live_climb", "operators_year", "runbook_move")
    report = driven(render(VARIANTS[-1]), tmp_path / "shop", *drives)
    assert_all_are_executed(report, "runbook_move")

    assert report["fence ms"].keys() == {"cut", "back", "cut again"}
    assert_moved_unnoticed(report)
    servers = []
    for name, found in report["its server"].items():
        here, by_pooler, by_migrations = found["ports"]
        assert here == by_pooler == by_migrations, name
        servers.append(here)
        if found["longest"] < 3000:
            assert report["people"][name]["announced"] == 0, report
    assert len(set(servers)) == 3, "its first server, its replica, and the new one"
    lost = report["its server lost"]
    assert lost["listed as lost"] >= lost["lost"] == 3
    [its_replica] = set(lost["ports"])
    assert its_replica not in servers
    recovered = report["its server recovered"]
    assert recovered["recovered"] == recovered["written"] != []
    assert re.search(r"Loss window: \d+ s\.", recovered["rehearsal"])


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_clients_wait_and_do_not_fail_while_a_pause_moves_the_tables_of_a_module(
    render: Render, tmp_path: Path
) -> None:
    live_climb = REPO / "benchmarks" / "live_climb"
    drives = (live_climb, "operators_year", "runbook_move", "runbook_pause")
    report = driven(render(VARIANTS[-1]), tmp_path / "shop", *drives)
    assert_all_are_executed(report, "runbook_pause")

    assert report["pause ms"].keys() == {"cut", "back", "cut again"}
    # The fence is within the pause, and the pause within PgBouncer's query_wait_timeout.
    for name, milliseconds in report["pause ms"].items():
        assert int(report["fence ms"][name]) <= int(milliseconds) < 5000, report
    assert_moved_unnoticed(report)


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_redis_is_upgraded_and_what_is_lost_for_good_is_only_what_the_runbook_says(
    render: Render, tmp_path: Path
) -> None:
    if shutil.which("redis-check-rdb") is None and os.environ.get("CI") != "true":
        pytest.skip("an older Redis is missing: apt-get install redis-tools")
    made = render({"stage": 4, "replica_routing": True})
    drives = (LIVE_CLIMB, "operators_year", "runbook_losses")
    report = driven(made, tmp_path / "shop", *drives)
    assert_all_are_executed(report, "runbook_losses")

    before, after, *later = report["versions"]
    assert (before, later) == ("redis 7", [before, after])
    assert after.startswith("valkey ")
    kept = {"a replica is left": 0, "the disk is left": 0, "nothing is left": VISITORS}
    assert report["logged out of those kept"] == kept
    # A visitor who is idle at that moment gets the 401 in a later step.
    logged_out = [people["logged_out"] for people in report["people"].values()]
    before_it = list(report["people"]).index("nothing is left")
    assert sum(logged_out[:before_it]) == 0, report
    assert 0 < sum(logged_out) <= VISITORS, report
    for name, people in report["people"].items():
        faults = {fault: people[fault] for fault in FAULTS if fault != "logged_out"}
        if name == "the bucket is gone":
            faults.pop("lost")  # somebody looks at a file before it is there again
        assert set(faults.values()) == {0}, report
        # Its check waits 7 s, and the way back has none.
        if name in report["switches"] and people["seconds"] < (4 if name == "the way back" else 11):
            assert people["announced"] == 0, report
    assert set(report["undone"].values()) == {True}, report["undone"]
    assert report["files of the copy that are lost"] == 0
    assert report["files that are lost"] == report["files that are listed as lost"] > 0


@pytest.mark.slow
def test_a_column_changes_while_two_versions_use_it_and_the_lint_agrees_with_the_page(
    render: Render, tmp_path: Path
) -> None:
    report = driven(render({"stage": 1}), tmp_path / "shop", LIVE_CLIMB, "runbook_schema")
    assert_all_are_executed(report, "runbook_schema")

    assert report["failed"] == []
    assert (report["differ"], report["wrong"], report["empty"]) == (0, 0, 0)
    assert report["split"] == [
        ["Ada Lovelace", "Ada", "Lovelace"],
        ["Alan Perlis", "Alan", "Perlis"],
        ["Grace Hopper", "Grace", "Hopper"],
    ]
    assert report["not tried"] == []
    lint = report["lint"]
    assert {name: rules for name, rules in lint.items() if name.startswith("safe") and rules} == {}
    for number, rule in enumerate(report["unsafe"]):
        assert rule in lint[f"unsafe_{number}"]
    for said, reason in [("asks", "'MockConnection' object"), ("typo", "module 'alembic.op'")]:
        assert re.match(rf"Cannot read .*/fails\.py: AttributeError: {reason}", report[said])
        assert "If it needs a database: the lint has none." in report[said]
