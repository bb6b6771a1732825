"""Two versions of a template: the newer changes a sample file, one of Rung's, and a question."""

import re
from pathlib import Path

import pytest
from growing import MARK, Repo, release, write
from people import COPIER, Person, git

QUESTION = """
metrics:
  type: bool
  default: {default}
  help: Should it count what it does?
"""


def next_version(template: Path, *, default: str | None = None, version: str = "v0.2.0") -> None:
    sample = template / "template" / "README.md.jinja"
    sample.write_text(sample.read_text() + "\nSaid by the new version.\n")
    owned = template / "template" / "app" / "infra" / "wiring.py.jinja"
    owned.write_text(owned.read_text().replace("WAIT_SECONDS = 5", "WAIT_SECONDS = 2"))
    if default:
        settings = template / "copier.yml"
        line = '  - "{% if not metrics %}app/infra/metrics.py{% endif %}"\n'
        text = settings.read_text().replace("\n\nproject_name:", f"\n{line}\nproject_name:", 1)
        settings.write_text(text + QUESTION.format(default=default))
        write(template / "template" / "app" / "infra" / "metrics.py", f"{MARK}\nCOUNT = True\n")
    release(template, version)


@pytest.fixture(params=[1, pytest.param(2, marks=pytest.mark.slow)], ids=["stage-1", "stage-2"])
def old(repo: Repo, own_growing_template: Path, request: pytest.FixtureRequest) -> Repo:
    if request.param == 2:
        repo.advances("--commit")
    return repo


def upgrades(repo: Repo, *words: str) -> str:
    done = repo.rung("upgrade", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_newer_version_is_merged_with_what_was_written_since(
    old: Repo, own_growing_template: Path
) -> None:
    old.edits("README.md", "#", "# Our own:")
    old.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 30")
    stage = old.answers()["stage"]
    next_version(own_growing_template)
    shown = upgrades(old)
    assert "From version v0.1.0 to version v0.2.0." in shown
    assert re.search(r"merged +app/infra/wiring.py", shown)
    assert re.search(r"merged +README.md", shown)
    assert old.text("README.md").startswith("# Our own:")
    assert old.text("README.md").endswith("Said by the new version.\n")
    wiring = old.text("app/infra/wiring.py")
    assert "WAIT_SECONDS = 2" in wiring
    assert "RETRIES = 30" in wiring
    assert (old.answers()["_commit"], old.answers()["stage"]) == ("v0.2.0", stage)
    assert len(old.status()) == 3


def test_a_new_question_is_asked_before_anything_is_added(
    old: Repo, own_growing_template: Path
) -> None:
    next_version(own_growing_template, default="true")
    reason = old.refuses("upgrade")
    assert "has new questions, and rung adds or removes nothing without an answer" in reason
    assert "--data metrics=true   Should it count what it does?" in reason
    upgrades(old, "--data", "metrics=false")
    assert not (old.folder / "app" / "infra" / "metrics.py").exists()
    assert old.answers()["metrics"] is False


@pytest.mark.slow
def test_a_new_question_answered_with_yes_adds_its_files(
    repo: Repo, own_growing_template: Path
) -> None:
    next_version(own_growing_template, default="false")
    assert re.search(r"added +app/infra/metrics.py", upgrades(repo, "--data", "metrics=true"))
    assert (repo.folder / "app" / "infra" / "metrics.py").exists()


@pytest.mark.slow
def test_an_answer_that_the_new_version_refuses_stops_the_upgrade(
    repo: Repo, own_growing_template: Path
) -> None:
    settings = own_growing_template / "copier.yml"
    settings.write_text(
        settings.read_text().replace("  help: Which team owns it?\n", "  choices: [ours, theirs]\n")
    )
    release(own_growing_template, "v0.2.0")
    done = repo.rung("upgrade")
    assert done.returncode != 0
    assert "team" in done.stderr
    assert repo.status() == []


@pytest.mark.slow
def test_advancing_stays_on_the_recorded_version(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template)
    repo.advances()
    assert repo.answers()["_commit"] == "v0.1.0"
    assert "WAIT_SECONDS = 5" in repo.text("app/infra/wiring.py")


@pytest.mark.slow
def test_upgrading_then_advancing_is_advancing_then_upgrading(
    repo: Repo, own_growing_template: Path
) -> None:
    other = repo.copied_to(repo.person.desk / "other")
    next_version(own_growing_template)
    upgrades(repo, "--commit")
    repo.advances("--commit")
    other.advances("--commit")
    upgrades(other, "--commit")
    assert repo.git("rev-parse", "HEAD^{tree}") == other.git("rev-parse", "HEAD^{tree}")


@pytest.mark.slow
def test_upgrading_again_does_nothing(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template)
    upgrades(repo, "--commit")
    assert repo.refuses("upgrade", code=0) == (
        "rung: Nothing to do: no version is newer than v0.2.0.\n"
    )


def test_an_answer_is_refused_and_not_dropped_when_no_version_is_newer(repo: Repo) -> None:
    reason = repo.refuses("upgrade", "--data", "team=Tea & Co")
    assert "No version is newer than v0.1.0, so team=Tea & Co was not applied." in reason
    assert "rung advance --to 1 --data 'team=Tea & Co'" in reason


def test_an_answer_that_changes_nothing_exits_with_0(repo: Repo) -> None:
    assert "Nothing to do" in repo.refuses("upgrade", "--data", "team=shop-team", code=0)


def test_a_template_that_has_moved_is_recorded_without_a_newer_version(
    repo: Repo, own_growing_template: Path
) -> None:
    moved = own_growing_template.with_name("moved")
    own_growing_template.rename(moved)
    assert "no longer at" in repo.refuses("upgrade")
    upgrades(repo, "--template", str(moved), "--commit")
    assert repo.answers() == {**repo.answers(), "_src_path": str(moved), "_commit": "v0.1.0"}
    assert "Nothing to do" in repo.refuses("upgrade", code=0)


@pytest.mark.slow
def test_an_upgrade_may_stop_at_an_earlier_version(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template)
    next_version(own_growing_template, version="v0.3.0")
    upgrades(repo, "--ref", "v0.2.0")
    assert repo.answers()["_commit"] == "v0.2.0"


@pytest.mark.slow
def test_a_branch_is_recorded_as_the_commit_it_is_now(
    repo: Repo, own_growing_template: Path
) -> None:
    next_version(own_growing_template)
    git("tag", "--delete", "v0.2.0", cwd=own_growing_template)
    upgrades(repo, "--ref", "main", "--commit")
    assert repo.answers()["_commit"].startswith("v0.1.0-1-g")
    assert "Nothing to do" in repo.refuses("upgrade", code=0)


@pytest.mark.slow
def test_a_pre_release_must_be_named(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template, version="v0.2.0rc1")
    assert "Nothing to do" in repo.refuses("upgrade", code=0)
    upgrades(repo, "--ref", "v0.2.0rc1")
    assert repo.answers()["_commit"] == "v0.2.0rc1"


@pytest.mark.slow
def test_an_older_version_is_refused(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template)
    upgrades(repo, "--commit")
    assert "v0.1.0 is older than v0.2.0" in repo.refuses("upgrade", "--ref=v0.1.0")


@pytest.mark.slow
def test_a_version_that_does_not_exist_is_refused(repo: Repo) -> None:
    assert "does not have v9.0.0" in repo.refuses("upgrade", "--ref=v9.0.0")


@pytest.mark.slow
def test_a_template_without_versions_is_refused(repo: Repo, own_growing_template: Path) -> None:
    commit = git("rev-parse", "HEAD", cwd=own_growing_template).strip()
    repo.edits(".copier-answers.yml", "v0.1.0", commit)
    git("tag", "--delete", "v0.1.0", cwd=own_growing_template)
    assert "has no version tags" in repo.refuses("upgrade")


@pytest.mark.slow
def test_a_dirty_tree_is_refused(repo: Repo, own_growing_template: Path) -> None:
    next_version(own_growing_template)
    repo.write("README.md", "Rewritten.\n")
    assert "not committed (README.md)" in repo.refuses("upgrade")


@pytest.mark.slow
def test_the_folder_where_somebody_types_stays_when_its_last_file_goes(
    repo: Repo, own_growing_template: Path
) -> None:
    page = own_growing_template / "template" / "docs" / "guide" / "old" / "page.md"
    write(page, f"<!-- {MARK} -->\n")
    release(own_growing_template, "v0.2.0")
    upgrades(repo, "--commit")
    page.unlink()
    release(own_growing_template, "v0.3.0")
    here = repo.folder / "docs" / "guide" / "old"
    done = repo.person.types("upgrade", at=here)
    assert done.returncode == 0, done.stderr
    assert not list(here.iterdir())
    undone = repo.person.types("undo", at=here)
    assert (undone.returncode, repo.status()) == (0, [])


@pytest.mark.slow
def test_a_new_version_deletes_untouched_files_and_refuses_edited_ones(
    repo: Repo, own_growing_template: Path
) -> None:
    (own_growing_template / "template" / "app" / "infra" / "simple.py").unlink()
    release(own_growing_template, "v0.2.0")
    edited = repo.copied_to(repo.person.desk / "edited")
    upgrades(repo)
    assert repo.status() == [" M .copier-answers.yml", " D app/infra/simple.py"]
    edited.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False")
    assert edited.rung("upgrade").returncode == 1
    assert edited.status() == []


@pytest.mark.slow
def test_a_template_at_a_url_upgrades(repo: Repo, own_growing_template: Path) -> None:
    repo.edits(
        ".copier-answers.yml", str(own_growing_template), f"git+file://{own_growing_template}"
    )
    next_version(own_growing_template)
    upgrades(repo, "--commit")
    assert repo.answers()["_commit"] == "v0.2.0"
    repo.advances()
    assert repo.answers()["stage"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("command", ["rung", "copier"])
def test_a_repo_of_copier_upgrades_with_rung_and_the_other_way_round(
    person: Person, own_growing_template: Path, command: str
) -> None:
    """own_growing_template brings a repo of its own along; here another is made."""
    new = (
        person.types("new", "inn", "--template", own_growing_template)
        if command == "rung"
        else person.runs(COPIER, "copy", "--defaults", own_growing_template, "inn")
    )
    assert new.returncode == 0, new.stderr
    inn = Repo(person, person.desk / "inn")
    if command == "copier":
        inn.git("init", "--quiet")
        inn.commit("Start")
    next_version(own_growing_template)
    done = (
        person.runs(COPIER, "update", "--defaults", at=inn.folder)
        if command == "rung"
        else inn.rung("upgrade")
    )
    assert done.returncode == 0, done.stderr
    assert inn.text("README.md").endswith("Said by the new version.\n")
    inn.commit("Upgrade")
    inn.advances()
    assert inn.answers()["stage"] == 2
