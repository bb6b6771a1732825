"""`rung advance` on a real repo: its preview, its changes and its output."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from growing import ADDED, CHANGED, DELETED, STATUS, Repo
from people import COPIER, Person, content
from rung.stages import LADDER


def files_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mode, content(path))
        for path in folder.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(folder).parts
    }


def test_the_next_stage_arrives_uncommitted_and_unstaged(repo: Repo) -> None:
    repo.advances()
    assert repo.status() == STATUS
    assert repo.answers()["stage"] == 2


@pytest.mark.slow
def test_an_untouched_project_becomes_what_a_new_one_is(
    repo: Repo, person: Person, growing_template: Path
) -> None:
    repo.advances()
    done = person.types("new", "fresh/shop", "--stage", "2", "--template", growing_template)
    assert done.returncode == 0, done.stderr
    assert files_of(repo.folder) == files_of(person.desk / "fresh" / "shop")


def test_an_advance_gives_the_same_files_as_plain_copier(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 30")
    repo.edits("README.md", "#", "# Our own:")
    plain = repo.copied_to(repo.person.desk / "plain")
    done = repo.person.runs(
        COPIER, "update", "--defaults", "--vcs-ref=:current:", "--data=stage=2", at=plain.folder
    )
    assert done.returncode == 0, done.stderr
    repo.advances()
    assert files_of(repo.folder) == files_of(plain.folder)
    assert repo.status() == plain.status()


def test_nothing_is_left_behind_in_git_but_the_record_for_undo(repo: Repo) -> None:
    before = {path.relative_to(repo.folder) for path in (repo.folder / ".git").rglob("*")}
    repo.advances()
    after = {path.relative_to(repo.folder) for path in (repo.folder / ".git").rglob("*")}
    assert after == {*before, Path(".git/rung-undo.json")}


def test_a_dry_run_shows_each_file_and_leaves_no_trace(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 30")
    with repo.person.leaving_no_trace():
        done = repo.rung("advance", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert re.search(r"added +app/infra/slow_queries.py +\+3 -0\n", done.stdout)
    assert re.search(r"changed +docs/stage.md +\+1 -1\n", done.stdout)
    assert re.search(r"merged +app/infra/wiring.py +\+1 -0\n", done.stdout)
    assert re.search(r"deleted +app/infra/simple.py +\+0 -4\n", done.stdout)
    assert "  2 added\n" in done.stdout
    assert "  1 merged (changed by you and by the step)\n" in done.stdout


@pytest.mark.slow
def test_the_step_does_what_the_dry_run_has_shown(repo: Repo) -> None:
    foretold = repo.rung("advance", "--dry-run", "--diff").stdout
    told = repo.advances("--diff")
    assert foretold.removesuffix("Dry run: nothing was changed.\n") in told


@pytest.mark.slow
def test_diff_shows_the_text(repo: Repo) -> None:
    shown = repo.rung("advance", "--dry-run", "--diff").stdout
    assert '+    "slow queries",\n' in shown
    assert "-SIMPLE = True\n" in shown


@pytest.mark.slow
def test_a_terminal_gets_the_diff_coloured_and_paged(repo: Repo) -> None:
    repo.person.environment["PAGER"] = "sed s/^/paged:/"
    with repo.person.at_a_terminal("advance", repo.folder, "--dry-run", "--diff") as terminal:
        assert terminal.wait_for_the_end() == 0
    assert "paged:\x1b[32m+" in terminal.shown
    repo.person.environment |= {"PAGER": "no-such-pager", "NO_COLOR": "1"}
    with repo.person.at_a_terminal("advance", repo.folder, "--dry-run", "--diff") as terminal:
        assert terminal.wait_for_the_end() == 0
    assert '+    "slow queries",\r\n' in terminal.shown


@pytest.mark.slow
def test_ctrl_c_in_the_pager_does_not_end_rung(repo: Repo) -> None:
    waits = "while :; do sleep 0.1; done"
    repo.person.environment["PAGER"] = f"cat; trap 'echo heard; exit' INT; echo listens; {waits}"
    with repo.person.at_a_terminal("advance", repo.folder, "--diff") as terminal:
        terminal.wait_for("listens")
        os.killpg(terminal.process.pid, signal.SIGINT)
        terminal.wait_for("heard")
        terminal.wait_for("[y/N]")
        terminal.press("n\r")
        assert terminal.wait_for_the_end() == 0


@pytest.mark.slow
def test_the_bottleneck_is_shown_first(repo: Repo) -> None:
    shown = repo.rung("advance", "--dry-run").stdout
    assert shown.startswith("Stage 2 (database), to 100,000 users.\n")
    assert "Do you see it? Measure first: " in shown


def test_the_default_of_a_new_question_is_shown(repo: Repo) -> None:
    assert "replica_routing: false is the default" in repo.advances()


@pytest.mark.slow
def test_a_new_question_can_be_answered(repo: Repo) -> None:
    assert "is the default" not in repo.advances(*ROUTED, "--data", "pooler=pgbouncer")
    assert repo.answers()["replica_routing"] is True
    assert (repo.folder / "dev" / "replica.py").exists()


def test_a_terminal_is_asked_once_and_yes_advances(repo: Repo) -> None:
    with repo.person.at_a_terminal("advance", repo.folder) as terminal:
        terminal.wait_for("Advance to stage 2 (database)? [y/N]")
        terminal.press("y\r")
        assert terminal.wait_for_the_end() == 0
    assert repo.answers()["stage"] == 2


def test_a_terminal_is_asked_once_and_no_leaves_everything(repo: Repo) -> None:
    with (
        repo.person.leaving_no_trace(),
        repo.person.at_a_terminal("advance", repo.folder) as terminal,
    ):
        terminal.wait_for("[y/N]")
        terminal.press("\r")
        assert terminal.wait_for_the_end() == 0
        assert "Nothing was changed." in terminal.shown


def test_without_a_terminal_advance_requires_yes(repo: Repo) -> None:
    assert "Pass --yes or --dry-run" in repo.refuses("advance", code=2)


def test_the_printed_undo_restores_everything(repo: Repo) -> None:
    repo.write("notes.txt", "Not committed, and not Rung's business.\n")
    before = files_of(repo.folder)
    said = repo.advances()
    assert files_of(repo.folder) != before
    repo.undoes(said)
    assert files_of(repo.folder) == before
    assert repo.status() == ["?? notes.txt"]


@pytest.mark.slow
def test_the_printed_review_shows_new_files_and_loses_none(repo: Repo) -> None:
    repo.write("app/notes.txt", "Not committed, and not Rung's business.\n")
    before = files_of(repo.folder)
    said = repo.advances()
    review = said.split("Review it:\n")[1].splitlines()[0].strip()
    repo.git("config", "diff.renames", "false")
    shown = subprocess.run(
        ["sh", "-c", review], cwd=repo.folder, check=True, capture_output=True, text=True
    ).stdout
    for name in (*ADDED, *CHANGED, *DELETED):
        assert f"diff --git a/{name} b/{name}\n" in shown
    repo.undoes(said)
    assert files_of(repo.folder) == before
    assert repo.status() == ["?? app/notes.txt"]


@pytest.mark.slow
def test_the_undo_of_another_folder_names_it(repo: Repo) -> None:
    before = files_of(repo.folder)
    done = repo.person.types("advance", "--yes", "shop")
    repo.undoes(done.stdout, at=repo.person.desk)
    assert files_of(repo.folder) == before


@pytest.mark.slow
def test_the_runbook_is_named(repo: Repo) -> None:
    assert "In production, follow docs/runbooks/to-stage-2.md.\n" in repo.advances()


@pytest.mark.slow
def test_a_running_make_dev_is_named_when_its_dependencies_change(repo: Repo) -> None:
    assert "If `make dev` is running, stop it and start it again.\n" in repo.advances()


def test_commit_commits_the_step_and_nothing_else(repo: Repo) -> None:
    repo.write("notes.txt", "Not yet.\n")
    said = repo.advances("--commit")
    assert repo.git("log", "-1", "--format=%an: %s") == (
        "Ada Lovelace: Bring shop to stage 2 (database)\n"
    )
    assert repo.status() == ["?? notes.txt"]
    repo.undoes(said)
    assert repo.status() == ["?? notes.txt"]
    assert repo.answers()["stage"] == 1


def test_dependencies_are_relocked_when_they_change(repo: Repo) -> None:
    repo.edits("uv.lock", "locked", "old")
    assert re.search(r"changed +uv.lock +\+1 -1\n", repo.advances())
    assert repo.text("uv.lock") == "# locked\n"


@pytest.mark.slow
def test_a_project_without_a_lock_gets_none(repo: Repo) -> None:
    repo.git("rm", "--quiet", "uv.lock")
    repo.commit()
    repo.advances()
    assert not (repo.folder / "uv.lock").exists()


@pytest.mark.slow
def test_a_lock_that_fails_is_reported_and_the_step_goes_on(repo: Repo) -> None:
    repo.edits("uv.lock", "locked", "old")
    repo.person.environment["UV"] = "/bin/false"
    assert "Dependencies are not locked (no reason given): run `sh dev/uv lock`" in repo.advances()
    assert repo.text("uv.lock") == "# old\n"


@pytest.mark.slow
def test_a_project_for_a_newer_python_is_locked_with_that_one(repo: Repo) -> None:
    """The uv of this test finds no such Python, and says so."""
    repo.edits("pyproject.toml", 'requires-python = ">=3.13"', 'requires-python = ">=3.99"')
    del repo.person.environment["UV"]
    said = repo.advances()
    assert "Dependencies are not locked (" in said
    assert "requested interpreter" not in said


def test_advancing_again_is_refused_at_the_last_stage(repo: Repo) -> None:
    repo.advances("--to", "2", "--commit")
    assert "The repo is at stage 2 (database) already" in repo.refuses("advance", "--to=2", "--yes")


@pytest.mark.slow
def test_advance_works_from_any_folder_of_the_project(repo: Repo) -> None:
    done = repo.person.types("advance", "--yes", at=repo.folder / "app" / "infra")
    assert done.returncode == 0, done.stderr
    assert repo.answers()["stage"] == 2


@pytest.fixture
def at_stage_2(repo: Repo) -> Repo:
    repo.advances("--commit")
    return repo


ROUTED = ("--data", "replica_routing=true")


def test_an_option_is_turned_on_at_the_present_stage(at_stage_2: Repo) -> None:
    shown = at_stage_2.advances("--to=2", *ROUTED)
    assert shown.startswith("Stage 2 (database) with replica_routing=true.\n")
    assert re.search(r"added +dev/replica.py", shown)
    assert at_stage_2.status() == [" M .copier-answers.yml", "?? dev/replica.py"]
    assert (at_stage_2.answers()["stage"], at_stage_2.answers()["replica_routing"]) == (2, True)


@pytest.mark.slow
def test_an_option_turned_on_later_gives_the_same_files_as_at_once(repo: Repo) -> None:
    at_once = repo.copied_to(repo.person.desk / "at-once")
    at_once.advances("--commit", *ROUTED)
    repo.advances("--commit")
    repo.advances("--commit", "--to=2", *ROUTED)
    assert repo.git("rev-parse", "HEAD^{tree}") == at_once.git("rev-parse", "HEAD^{tree}")
    assert repo.git("log", "-1", "--format=%s") == (
        "Bring shop to stage 2 (database) with replica_routing=true\n"
    )


@pytest.mark.slow
def test_an_option_is_turned_off_again(at_stage_2: Repo) -> None:
    before = files_of(at_stage_2.folder)
    at_stage_2.advances("--commit", "--to=2", *ROUTED)
    at_stage_2.advances("--to=2", "--data", "replica_routing=false")
    assert files_of(at_stage_2.folder) == before


@pytest.mark.slow
def test_without_a_stage_an_answer_applies_to_the_next_stage(at_stage_2: Repo) -> None:
    shown = at_stage_2.advances(*ROUTED)
    assert shown.startswith(f"Stage 3 ({LADDER[2].name}), ")
    assert (at_stage_2.answers()["stage"], at_stage_2.answers()["replica_routing"]) == (3, True)


@pytest.mark.slow
def test_at_the_last_stage_an_answer_changes_that_stage(repo: Repo) -> None:
    repo.advances("--commit", f"--to={LADDER[-1].number}")
    repo.advances(*ROUTED)
    assert repo.answers()["stage"] == LADDER[-1].number
    assert (repo.folder / "dev" / "replica.py").exists()


@pytest.mark.parametrize("command", ["advance", "upgrade", "status", "undo"])
def test_each_command_has_help(person: Person, command: str) -> None:
    assert person.types(command, "--help").returncode == 0
