"""Rung stops or reports where plain Copier loses a person's work without a word."""

import re
from pathlib import Path

import pytest
from growing import MARK, Repo, release
from people import COPIER, Person, git

pytestmark = pytest.mark.slow

ADVANCE = ("advance", "--yes")


def test_an_edit_in_a_file_that_the_step_deletes_is_refused(repo: Repo) -> None:
    repo.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False  # we need this")
    done = repo.rung(*ADVANCE)
    assert done.returncode == 1
    assert repo.status() == []
    assert re.search(r"edited and deleted +app/infra/simple.py", done.stdout)
    assert "deletes files that you have edited: app/infra/simple.py" in done.stderr
    repo.git("rm", "--quiet", "app/infra/simple.py")
    repo.commit()
    repo.advances()


def test_a_renamed_file_that_the_step_changes_is_reported(repo: Repo) -> None:
    repo.git("mv", "app/infra/wiring.py", "app/infra/parts.py")
    repo.commit()
    shown = repo.advances()
    assert re.search(r"left out +app/infra/wiring.py", shown)
    assert "removed or renamed by you, changed by the step: the change is not applied" in shown
    assert not (repo.folder / "app/infra/wiring.py").exists()
    assert '"slow queries"' not in repo.text("app/infra/parts.py")


def test_a_removed_file_stays_removed(repo: Repo) -> None:
    repo.git("rm", "--quiet", "app/infra/simple.py", "docs/stage.md")
    repo.commit()
    repo.advances()
    assert not (repo.folder / "app/infra/simple.py").exists()
    assert not (repo.folder / "docs/stage.md").exists()


@pytest.mark.parametrize("ignored", [False, True], ids=["untracked", "ignored"])
def test_an_uncommitted_file_at_a_path_of_the_step_is_refused(repo: Repo, ignored: bool) -> None:
    if ignored:
        repo.write(".gitignore", repo.text(".gitignore") + "slow_queries.py\n")
        repo.commit()
    repo.write("app/infra/slow_queries.py", "OURS = True\n")
    reason = repo.refuses(*ADVANCE)
    assert "The step adds app/infra/slow_queries.py" in reason
    assert repo.text("app/infra/slow_queries.py") == "OURS = True\n"


def test_an_ignored_file_at_a_path_of_a_new_version_is_refused(
    repo: Repo, own_growing_template: Path
) -> None:
    (own_growing_template / "template" / ".env").write_text("KEY=theirs\n")
    release(own_growing_template, "v0.2.0")
    repo.write(".env", "KEY=ours\n")
    assert "The step adds .env" in repo.refuses("upgrade")
    assert repo.text(".env") == "KEY=ours\n"


def test_a_link_in_place_of_a_folder_of_the_step_is_refused(repo: Repo, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (repo.folder / "docs" / "runbooks").symlink_to(tmp_path / "elsewhere")
    assert "docs/runbooks/to-stage-2.md" in repo.refuses(*ADVANCE)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_committed_file_where_the_step_needs_a_folder_is_refused(repo: Repo) -> None:
    repo.write("docs/runbooks", "One page is enough for us.\n")
    repo.commit()
    assert "docs/runbooks/to-stage-2.md" in repo.refuses(*ADVANCE)


def test_a_committed_file_at_a_path_of_the_step_is_a_conflict_that_keeps_both(repo: Repo) -> None:
    repo.write("app/infra/slow_queries.py", "OURS = True\n")
    repo.commit()
    assert "In conflict: app/infra/slow_queries.py." in repo.rung(*ADVANCE).stderr
    assert repo.rung(*ADVANCE, "--keep-conflicts").returncode == 1
    assert "OURS = True" in repo.text("app/infra/slow_queries.py")
    assert "SLOW_MS = 200" in repo.text("app/infra/slow_queries.py")


def test_an_edit_in_one_of_several_equal_blocks_stays_there(repo: Repo) -> None:
    twins = repo.text("deploy/compose.yaml")
    first, second = twins.split("  worker:\n")
    repo.write(
        "deploy/compose.yaml", f"{first}  worker:\n{second.replace('init: true', 'init: false', 1)}"
    )
    repo.commit()
    repo.advances()
    web, rest = repo.text("deploy/compose.yaml").split("  worker:\n")
    worker, scheduler = rest.split("  scheduler:\n")
    assert "init: true" in web
    assert "init: false" in worker
    assert "init: true\n    cpus: 2" in scheduler


def test_the_persons_excludes_file_hides_no_file_of_the_step(repo: Repo) -> None:
    home = repo.person.temporary.parent / "home"
    home.mkdir()
    (home / "ignored").write_text("*.py\ndocs\n")
    (home / ".gitconfig").write_text(
        Path(repo.person.environment["GIT_CONFIG_GLOBAL"]).read_text(encoding="utf-8")
        + f"[core]\n\texcludesFile = {home}/ignored\n"
    )
    repo.person.environment["GIT_CONFIG_GLOBAL"] = str(home / ".gitconfig")
    repo.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 30")
    repo.advances("--commit")
    assert "SLOW_MS" in git("show", "HEAD:app/infra/slow_queries.py", cwd=repo.folder)
    assert "RETRIES = 30" in repo.text("app/infra/wiring.py")


def test_a_conflict_never_exits_with_0(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    for words in (("advance", "--dry-run"), ADVANCE):
        reason = repo.refuses(*words)
        assert "In conflict: app/infra/wiring.py." in reason
    assert repo.answers()["stage"] == 1


def test_kept_conflicts_are_listed_marked_and_unmerged(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    done = repo.rung(*ADVANCE, "--keep-conflicts")
    assert done.returncode == 1
    assert "Conflicts to resolve, marked in the files: app/infra/wiring.py." in done.stderr
    assert '<<<<<<< yours\n    "ours",\n=======\n    "slow queries",\n>>>>>>> ' in repo.text(
        "app/infra/wiring.py"
    )
    assert "UU app/infra/wiring.py" in repo.status()
    assert repo.answers()["stage"] == 2
    assert not list(repo.folder.rglob("*.rej"))
    repo.undoes(done.stdout)
    assert repo.status() == []


def test_kept_conflicts_are_not_committed(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    head = repo.git("rev-parse", "HEAD")
    done = repo.rung(*ADVANCE, "--keep-conflicts", "--commit")
    assert done.returncode == 1
    assert "app/infra/wiring.py. So the step is not committed." in done.stderr
    assert repo.git("rev-parse", "HEAD") == head
    assert "UU app/infra/wiring.py" in repo.status()
    repo.undoes(done.stdout)
    assert repo.status() == []


def test_a_file_replaced_by_a_link_is_a_conflict(repo: Repo) -> None:
    (repo.folder / "docs" / "stage.md").unlink()
    (repo.folder / "docs" / "stage.md").symlink_to("../README.md")
    repo.commit()
    assert "In conflict: docs/stage.md" in repo.refuses(*ADVANCE)


def test_edits_on_both_sides_of_one_of_rungs_files_are_merged(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 30")
    assert re.search(r"merged +app/infra/wiring.py", repo.advances())
    assert '"slow queries"' in repo.text("app/infra/wiring.py")
    assert "RETRIES = 30" in repo.text("app/infra/wiring.py")


@pytest.mark.parametrize("words", [("--to=2",)])
def test_a_stage_edited_by_hand_is_refused(repo: Repo, words: tuple[str, ...]) -> None:
    repo.edits(".copier-answers.yml", "stage: 1", "stage: 2\nreplica_routing: false")
    reason = repo.refuses(*ADVANCE, *words)
    assert "The answers say stage: 2, but the files belong to stage: 1" in reason


def test_status_shows_that_a_stage_was_edited_by_hand(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "stage: 1", "stage: 2\nreplica_routing: false")
    assert "app/infra/slow_queries.py" in repo.rung("status").stdout


def test_a_stage_edited_by_hand_stops_an_upgrade(repo: Repo, own_growing_template: Path) -> None:
    repo.edits(".copier-answers.yml", "stage: 1", "stage: 2\nreplica_routing: false")
    (own_growing_template / "template" / "later.txt").write_text("later\n")
    release(own_growing_template, "v0.2.0")
    reason = repo.refuses("upgrade")
    assert "The answers say stage: 2, but the files belong to stage: 1" in reason


def test_an_option_edited_by_hand_is_refused(repo: Repo, own_growing_template: Path) -> None:
    repo.advances("--commit")
    repo.edits(".copier-answers.yml", "replica_routing: false", "replica_routing: true")
    (own_growing_template / "template" / "later.txt").write_text("later\n")
    release(own_growing_template, "v0.2.0")
    reason = repo.refuses("upgrade")
    assert "The answers say replica_routing: true, but the files belong to" in reason


def test_a_choice_edited_by_hand_is_refused(repo: Repo, own_growing_template: Path) -> None:
    repo.advances("--commit")
    repo.edits(".copier-answers.yml", "pooler: pgbouncer", "pooler: rds_proxy")
    (own_growing_template / "template" / "later.txt").write_text("later\n")
    release(own_growing_template, "v0.2.0")
    reason = repo.refuses("upgrade")
    assert "The answers say pooler: rds_proxy, but the files belong to pooler: pgbouncer" in reason


def test_the_recorded_version_moves_only_with_the_files(repo: Repo) -> None:
    repo.edits("app/infra/wiring.py", '    "database",\n]', '    "database",\n    "ours",\n]')
    before = repo.answers()
    repo.rung(*ADVANCE)
    assert repo.answers() == before


def test_an_answer_that_a_step_takes_out_is_named(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "stage: 1", "stage: 1\nregion: eu")
    said = "region is removed from .copier-answers.yml: stage 2 (database) does not ask for it.\n"
    assert said in repo.rung("advance", "--dry-run").stdout
    assert said in repo.advances()


def test_uncommitted_changes_of_the_template_do_not_arrive(
    repo: Repo, own_growing_template: Path
) -> None:
    (own_growing_template / "template" / "draft.txt").write_text("Not committed.\n")
    repo.advances()
    assert not (repo.folder / "draft.txt").exists()
    assert repo.answers()["_commit"] == "v0.1.0"


def test_skip_if_exists_is_respected(repo: Repo, own_growing_template: Path) -> None:
    """A fork may say that a file is written once."""
    settings = own_growing_template / "copier.yml"
    settings.write_text("_skip_if_exists: [README.md, app/__init__.py]\n" + settings.read_text())
    (own_growing_template / "template" / "README.md.jinja").write_text("# Another\n")
    (own_growing_template / "template" / "app" / "__init__.py").write_text("VERSION = 2\n")
    release(own_growing_template, "v0.2.0")
    repo.git("rm", "--quiet", "app/__init__.py")
    repo.commit()
    repo.edits("README.md", "#", "# Our own:")
    ours = repo.text("README.md")
    assert repo.rung("upgrade").returncode == 0
    assert repo.text("README.md") == ours
    assert repo.text("app/__init__.py") == "VERSION = 2\n"


def test_a_project_of_plain_copier_advances_just_as_well(
    person: Person, growing_template: Path
) -> None:
    done = person.runs(COPIER, "copy", "--defaults", growing_template, "shop")
    assert done.returncode == 0, done.stderr
    repo = Repo(person, person.desk / "shop")
    repo.git("init", "--quiet")
    repo.commit("Start")
    repo.advances()
    assert MARK in repo.text("app/infra/slow_queries.py")
