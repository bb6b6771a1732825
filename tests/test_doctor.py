"""`rung doctor`: runs the project's own, and `rung advance` shows its last verdict."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from growing import Repo
from people import Person
from rung.doctor import VERDICT, last_verdict

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def keep(folder: Path, *, hours: float = 3, stage: int | None = None, rule: str = "index") -> None:
    verdict = {"rule": rule, "text": "an index is missing on orders", "advance_to": stage}
    at = (NOW - timedelta(hours=hours)).isoformat()
    (folder / VERDICT).parent.mkdir(exist_ok=True)
    (folder / VERDICT).write_text(json.dumps({"version": 1, "at": at, "verdict": verdict}))


@pytest.mark.parametrize(
    ("hours", "stage", "rule", "told"),
    [
        (3, None, "index", "Doctor, 3 hours ago: stay. It saw: an index is missing on orders."),
        (25, 3, "cache", "Doctor, 1 day ago: advance to stage 3. It saw: "),
        (0, None, "not-known", "Doctor, less than a minute ago: not known. It saw: "),
    ],
)
def test_the_last_verdict_is_told_with_its_age(
    tmp_path: Path, hours: float, stage: int | None, rule: str, told: str
) -> None:
    keep(tmp_path, hours=hours, stage=stage, rule=rule)

    assert last_verdict(tmp_path, NOW).startswith(told)


@pytest.mark.parametrize(
    "content", [None, "", "{", "[]", "null", '{"verdict": {}}', '{"verdict": 1, "at": 2}']
)
def test_without_a_verdict_it_says_how_to_get_one(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / VERDICT).parent.mkdir()
        (tmp_path / VERDICT).write_text(content)

    assert last_verdict(tmp_path, NOW).endswith("To measure first: rung doctor")


def test_a_folder_that_is_no_project_has_no_doctor(person: Person) -> None:
    done = person.types("doctor")

    assert done.returncode != 0
    assert "is not a project of Rung's" in done.stderr


def test_a_project_of_an_older_template_is_told_to_upgrade(repo: Repo) -> None:
    done = repo.rung("doctor")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "rung: This project has no doctor yet. Run rung upgrade first.\n"


def test_who_advances_first_sees_the_last_verdict(repo: Repo) -> None:
    keep(repo.folder)
    (repo.folder / ".git" / "info" / "exclude").write_text(".dev/\n")
    with repo.person.at_a_terminal("advance", repo.folder) as terminal:
        terminal.wait_for("[y/N]")
        terminal.press("\r")
        terminal.wait_for_the_end()

    assert "ago: stay. It saw: an index is missing on orders." in terminal.shown
