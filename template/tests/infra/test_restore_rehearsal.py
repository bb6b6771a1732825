# Rung's file: advancing to another stage may change it.
"""`make restore-rehearsal`: a long path is no obstacle, and a wrong input says what to do."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from dev import postgres
from dev.backup import rehearsal
from dev.backup.rehearsal import Archive, RehearsalError, time_of

# A new cluster is a backup, too.
BARMAN = """#!/bin/sh
case "$0" in
*-list) echo '{listed}' ;;
*-wal-restore)
    [ -e "$(dirname "$0")/$3" ] || exit {wal_restore}
    cp "pg_wal/$3" "$4" || : > "$4" ;;
*-restore)
    {binaries}/initdb --pgdata="$4" --username=postgres --no-sync || exit
    echo '{statements}' | {binaries}/postgres --single -F -D "$4" postgres || true ;;
esac
"""

# What the backup holds. Its last line kills the server, so the temporary table stays in pg_class.
STATEMENTS = """\
CREATE TABLE days (day int) PARTITION BY LIST (day)
CREATE TABLE monday PARTITION OF days FOR VALUES IN (1)
INSERT INTO days VALUES (1), (1)
CREATE DATABASE closed ALLOW_CONNECTIONS false
CREATE TEMPORARY TABLE of_a_session (day int)
COPY days (day) FROM PROGRAM $$kill -KILL $PPID$$
"""


RESTORES_FOR_MINUTES = """
import sys
from pathlib import Path
from dev import postgres, supervisor

folder = Path(sys.argv[1])

def restore():
    postgres.fill(folder / "data", "", lambda place: ["sleep", "600"], remove=True)

with supervisor.shared(folder, restore, remove=True):
    pass
"""


def test_without_a_backup_folder_the_command_says_how_to_name_one() -> None:
    with pytest.raises(RehearsalError, match="BACKUP=s3://bucket/folder"):
        Archive.of({})


def test_without_barman_the_command_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(RehearsalError, match="apt-get install barman-cli-cloud"):
        Archive.of({"BACKUP": "s3://shop-backups/postgres"})


@pytest.mark.parametrize("text", ["yesterday", "2026-01-31 12:00:00"])
def test_a_recovery_time_needs_a_date_and_a_time_zone(text: str) -> None:
    with pytest.raises(RehearsalError, match="not a time with a zone"):
        time_of(text)


def test_a_recovery_time_may_be_written_as_postgres_prints_it() -> None:
    assert time_of("2026-01-31 12:00:00+00") == time_of("2026-01-31T13:00:00+01:00")
    assert time_of("") is None


@pytest.fixture
def deep_folder() -> Iterator[Path]:
    """Its path is longer than that of a socket may be. Every user may enter it."""
    top = postgres.temporary_folder() / f"rung-rehearsal-{uuid4().hex}"
    folder = top / ("a-long-name" * 10)
    folder.mkdir(parents=True)
    for one in (top, folder):
        one.chmod(0o755)
    yield folder
    shutil.rmtree(top)


@pytest.fixture
def archive(
    deep_folder: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Callable[[int], Archive]:
    """One with a backup. It answers each request for WAL with that exit code."""
    binaries = postgres.binaries()
    monkeypatch.setattr(postgres, "binaries", lambda: binaries)
    monkeypatch.setattr(postgres, "state_folder", lambda: deep_folder)
    monkeypatch.setenv("PATH", f"{deep_folder}:{os.environ['PATH']}")
    ended = datetime.now(UTC) - getattr(request, "param", timedelta())
    backup = {"backup_id": "7", "status": "DONE", "end_time_iso": str(ended)}
    listed = json.dumps({"backups_list": [backup]})

    def made(wal_restore: int) -> Archive:
        for name in ("backup-list", "restore", "wal-restore"):
            program = deep_folder / f"barman-cloud-{name}"
            program.write_text(
                BARMAN.format(
                    listed=listed,
                    binaries=binaries,
                    statements=STATEMENTS,
                    wal_restore=wal_restore,
                )
            )
            program.chmod(0o755)
        return Archive("s3://backups", "main", ())

    return made


@pytest.mark.slow
def test_a_backup_is_rehearsed_in_a_repo_with_a_long_path(
    archive: Callable[[int], Archive], capsys: pytest.CaptureFixture[str]
) -> None:
    rehearsal.rehearse(archive(1), None, "postgres")
    said = capsys.readouterr().out
    assert "pg_amcheck finds no damaged table or index." in said
    assert re.findall(r"(?m)^ +(\d+)  (.*)", said) == [
        ("2", "postgres.public.days"),
        ("2", "rows in 1 tables"),
    ]


@pytest.mark.slow
def test_a_restored_server_can_be_asked_until_enter_is_pressed(
    archive: Callable[[int], Archive],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    deep_folder: Path,
) -> None:
    asked = []

    def ask() -> str:
        place = re.search("host=(.*) port=5432 user=(.*) dbname", capsys.readouterr().out)
        assert place
        fetched = rehearsal._fetch(place[1], place[2], "postgres", "SELECT 41 + 1")
        asked.extend(asyncio.run(fetched))
        return "\n"

    monkeypatch.setattr("sys.stdin.readline", ask)
    rehearsal.rehearse(archive(1), None, "postgres", keep=True)
    assert asked == [42]
    assert not (deep_folder / "restore-rehearsal").exists()


@pytest.mark.slow
@pytest.mark.parametrize("wal_restore", [2, 4])  # no network; an error of S3
def test_an_archive_that_fails_is_not_taken_for_its_end(
    archive: Callable[[int], Archive], wal_restore: int
) -> None:
    with pytest.raises(RehearsalError, match="exit code 255"):
        rehearsal.rehearse(archive(wal_restore), None, "postgres")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("there", "gap"),
    [
        (("1",), None),
        (("1", "3"), "000000010000000000000002 is missing, and 000000010000000000000003 is there"),
        (("1", "1F", "20", "21", "22"), "2 is missing, and 000000010000000000000022 is there"),
    ],
)
def test_a_gap_in_the_archive_is_not_taken_for_its_end(
    archive: Callable[[int], Archive],
    deep_folder: Path,
    there: Sequence[str],
    gap: str | None,
) -> None:
    backups = archive(1)
    for number in there:
        (deep_folder / f"0000000100000000{number:0>8}").touch()
    with pytest.raises(RehearsalError, match=gap) if gap else nullcontext():
        rehearsal.rehearse(backups, None, "postgres")


def test_wal_files_are_counted_past_the_last_of_256() -> None:
    assert rehearsal._wal_after("0000000200000001000000FE", 3) == "000000020000000200000001"


@pytest.mark.parametrize("archive", [timedelta(days=3)], indirect=True)
def test_a_nightly_backup_that_fails_is_noticed(archive: Callable[[int], Archive]) -> None:
    with pytest.raises(RehearsalError, match="the nightly job fails"):
        rehearsal.rehearse(archive(1), None, "postgres")


def test_a_restore_ends_with_its_rehearsal_and_leaves_no_file(tmp_path: Path) -> None:
    """Also after kill -9. A copy of a large server would fill the disk for hours."""
    folder = tmp_path / "rehearsal"
    end = time.monotonic() + 120
    command = [sys.executable, "-c", RESTORES_FOR_MINUTES, str(folder)]
    with subprocess.Popen(command, cwd=postgres.REPOSITORY) as rehearsal:
        while not (folder / "server.pid").exists() and time.monotonic() < end:
            time.sleep(0.05)
        rehearsal.kill()
    while folder.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not folder.exists()  # its supervisor removes it once the restore has ended
