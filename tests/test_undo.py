"""`rung undo` takes back the last step, or says why it cannot. No edit is lost."""

import json
import signal
from pathlib import Path

import pytest
from growing import Repo, release
from people import git
from test_advance import files_of
from test_advance_faults import leftovers, meets

UNDONE = "The step to stage 2 (database) is undone"


def undone(repo: Repo, *words: str | Path) -> str:
    done = repo.rung("undo", *words)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_an_advance_is_taken_back_and_can_be_taken_again(repo: Repo) -> None:
    before = files_of(repo.folder)
    repo.advances()
    assert undone(repo) == f"{UNDONE}.\n"
    assert files_of(repo.folder) == before
    assert repo.status() == []
    assert leftovers(repo) == []
    repo.advances()
    assert repo.is_advanced()


def test_a_committed_advance_is_taken_back_by_a_commit(repo: Repo) -> None:
    before = repo.git("rev-parse", "HEAD^{tree}")
    repo.advances("--commit")
    assert undone(repo) == f"{UNDONE}, in a new commit.\n"
    assert repo.git("rev-parse", "HEAD^{tree}") == before
    assert repo.status() == []
    assert repo.git("log", "-2", "--format=%s").splitlines() == [
        'Undo "Bring shop to stage 2 (database)"',
        "Bring shop to stage 2 (database)",
    ]


@pytest.mark.slow
def test_an_upgrade_is_taken_back(repo: Repo, own_growing_template: Path) -> None:
    (own_growing_template / "template" / "later.txt").write_text("later\n", encoding="utf-8")
    release(own_growing_template, "v0.2.0")
    before = files_of(repo.folder)
    assert "    rung undo\n" in repo.rung("upgrade").stdout
    assert undone(repo) == "The step to version v0.2.0 is undone.\n"
    assert files_of(repo.folder) == before


def test_undo_without_a_step_is_refused(repo: Repo) -> None:
    assert "There is no step to undo" in repo.refuses("undo")
    repo.advances()
    undone(repo)
    assert "There is no step to undo" in repo.refuses("undo")


@pytest.mark.parametrize(
    "name",
    [
        "app/infra/wiring.py",
        pytest.param("app/infra/slow_queries.py", marks=pytest.mark.slow),
        pytest.param("app/infra/simple.py", marks=pytest.mark.slow),
    ],
)
def test_undo_refuses_after_a_later_edit_and_keeps_the_edit(repo: Repo, name: str) -> None:
    repo.advances()
    repo.write(name, "EDITED = True\n")
    reason = repo.refuses("undo")
    assert f"Edited since the step to stage 2 (database): {name}. Nothing was changed." in reason
    assert repo.text(name) == "EDITED = True\n"


@pytest.mark.slow
def test_an_edit_that_is_only_staged_is_kept(repo: Repo) -> None:
    repo.advances()
    stepped = repo.text("docs/stage.md")
    repo.write("docs/stage.md", "Staged.\n")
    repo.git("add", "docs/stage.md")
    repo.write("docs/stage.md", stepped)
    assert "Staged since the step" in repo.refuses("undo")
    assert repo.git("show", ":docs/stage.md") == "Staged.\n"


@pytest.mark.slow
def test_a_step_that_was_staged_is_taken_back(repo: Repo) -> None:
    before = files_of(repo.folder)
    repo.advances()
    repo.git("add", "--all")
    undone(repo)
    assert files_of(repo.folder) == before
    assert repo.status() == []


def test_undo_accepts_files_that_the_person_has_already_put_back(repo: Repo) -> None:
    repo.advances()
    repo.git("restore", "docs/stage.md", "app/infra/simple.py")
    undone(repo)
    assert repo.status() == []


@pytest.mark.slow
def test_other_files_stay_as_they_are(repo: Repo) -> None:
    repo.advances()
    repo.write("notes.txt", "mine\n")
    repo.write("README.md", "mine\n")
    repo.git("add", "README.md")
    undone(repo)
    assert repo.status() == ["M  README.md", "?? notes.txt"]


def test_a_step_that_the_person_has_committed_is_refused(repo: Repo) -> None:
    repo.advances()
    repo.commit("Advance")
    reason = repo.refuses("undo")
    assert "HEAD has changed since the step to stage 2 (database)" in reason
    assert "git revert" in reason


@pytest.mark.slow
def test_a_commit_after_the_steps_commit_is_refused(repo: Repo) -> None:
    repo.advances("--commit")
    commit = repo.git("rev-parse", "HEAD").strip()
    repo.edits("README.md", "#", "# Our own:")
    assert f"git revert {commit[:12]}" in repo.refuses("undo")


@pytest.mark.slow
@pytest.mark.parametrize("left", ["commit --amend --message=x", "reset --hard HEAD~1"])
def test_a_branch_without_the_steps_commit_is_named(repo: Repo, left: str) -> None:
    repo.advances("--commit")
    commit = repo.git("rev-parse", "--short=12", "HEAD").strip()
    repo.git(*left.split())
    reason = repo.refuses("undo")
    assert f"Its commit {commit} is not in this branch" in reason
    assert f"git revert {commit}" not in reason


@pytest.mark.slow
def test_an_uncommitted_edit_after_the_steps_commit_is_refused(repo: Repo) -> None:
    repo.advances("--commit")
    repo.write("docs/stage.md", "Ours.\n")
    assert "Edited since" in repo.refuses("undo")


@pytest.mark.slow
def test_marked_conflicts_are_taken_back_and_half_resolved_ones_are_not(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    before = files_of(repo.folder)
    repo.rung("advance", "--yes", "--keep-conflicts")
    marked = repo.text("app/infra/wiring.py")
    repo.write("app/infra/wiring.py", "RESOLVED = True\n")
    assert "Edited since" in repo.refuses("undo")
    repo.write("app/infra/wiring.py", marked)
    undone(repo)
    assert files_of(repo.folder) == before
    assert repo.status() == []


@pytest.mark.slow
def test_two_projects_of_one_repository_are_taken_back_each_on_its_own(repo: Repo) -> None:
    whole = repo.person.desk / "whole"
    whole.mkdir()
    git("init", "--quiet", cwd=whole)
    shops = [Repo(repo.person, whole / name) for name in ("one", "two")]
    for shop in shops:
        repo.git("checkout-index", "--all", f"--prefix={shop.folder}/")
    shops[0].commit()
    shops[1].commit() if shops[1].status() else None
    for shop in shops:
        shop.git("add", "--all", ".")
    for shop in shops:
        shop.advances()
    undone(shops[0])
    assert (shops[0].answers()["stage"], shops[1].answers()["stage"]) == (1, 2)
    undone(shops[1])
    assert git("status", "--porcelain", cwd=whole) == ""


@pytest.mark.slow
def test_a_step_that_was_finished_after_a_kill_is_taken_back(repo: Repo) -> None:
    meets("kill", 5, repo)
    repo.rung("status")
    assert repo.is_advanced()
    undone(repo)
    assert repo.status() == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 5, 8])
def test_an_undo_that_was_killed_is_finished_by_the_next_command(repo: Repo, number: int) -> None:
    repo.advances()
    assert meets("kill", number, repo, command=("undo",)).returncode == -signal.SIGKILL
    done = repo.rung("status")
    assert "Undoing the step to stage 2 (database) was interrupted here" in done.stderr
    assert repo.is_advanced() == (number == 1)
    assert leftovers(repo) == []


@pytest.mark.parametrize("broken", ["", "[]", "{", '{"intent": 1}'])
def test_a_broken_undo_record_is_reported(repo: Repo, broken: str) -> None:
    (repo.folder / ".git" / "rung-undo.json").write_text(broken, encoding="utf-8")
    assert "rung-undo.json is broken" in repo.refuses("undo")


@pytest.mark.slow
def test_a_sha256_repository_is_advanced_with_conflicts_and_taken_back(repo: Repo) -> None:
    other = Repo(repo.person, repo.person.desk / "sha256")
    repo.git("checkout-index", "--all", f"--prefix={other.folder}/")
    other.git("init", "--quiet", "--object-format=sha256")
    other.commit("Start")
    other.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    assert other.rung("advance", "--yes", "--keep-conflicts").returncode == 1
    assert "UU app/infra/wiring.py" in other.status()
    record = json.loads((other.folder / ".git" / "rung-undo.json").read_bytes())
    assert len(record["head"]) == 64
    undone(other)
    assert other.status() == []


def test_settings_for_reading_a_history_do_not_stop_a_commit_or_its_undo(repo: Repo) -> None:
    repo.git("config", "i18n.logOutputEncoding", "utf-16")
    repo.git("config", "diff.orderFile", "/nowhere")
    repo.advances("--commit")
    done = repo.rung("undo")
    assert (done.returncode, done.stderr) == (0, "")
