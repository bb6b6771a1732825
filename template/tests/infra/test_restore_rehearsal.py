# Rung's file: advancing to another stage may change it.
"""`make restore-rehearsal`: each wrong input ends in a line that says what to do."""

import pytest

from dev.backup.rehearsal import Archive, RehearsalError, time_of


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
