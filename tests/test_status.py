"""`rung status` shows a project's stage, version and edited files. It changes nothing."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from growing import Repo, release
from people import Person
from rung.stages import LADDER
from variants import VARIANTS, variant_name


def told(repo: Repo) -> dict[str, Any]:
    with repo.person.leaving_no_trace():
        done = repo.rung("status", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_status_shows_stage_template_version_and_the_next_stage(
    repo: Repo, growing_template: Path
) -> None:
    shown = repo.rung("status").stdout
    assert "stage      1 (foundation)\n" in shown
    assert f"template   v0.1.0 of {growing_template}\n" in shown
    brings = f"{LADDER[1].breaks}. It brings {LADDER[1].arrives}"
    assert f"next       {LADDER[1]}, for {brings}\n" in shown
    assert "newer      none\n" in shown
    assert "edited     none\n" in shown


def test_json_shows_the_same(repo: Repo, growing_template: Path) -> None:
    found = told(repo)
    assert (found["stage"], found["version"]) == (1, "v0.1.0")
    assert found["template"] == str(growing_template)
    assert found["newer_versions"] == []
    assert found["edited"] == []
    assert found["problems"] == []


def test_at_the_last_stage_no_stage_is_next(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "stage: 1", f"stage: {LADDER[-1].number}")
    assert "next       none: this is the last stage\n" in repo.rung("status").stdout


def test_edited_files_of_rungs_are_listed_committed_or_not(repo: Repo) -> None:
    repo.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False")
    repo.write("docs/stage.md", "Ours.\n")
    repo.write("README.md", "Ours.\n")
    repo.git("rm", "--quiet", "dev/uv")
    assert told(repo)["edited"] == ["app/infra/simple.py", "dev/uv", "docs/stage.md"]


def test_edited_files_of_a_repository_with_sha256_are_listed(
    repo: Repo, growing_template: Path
) -> None:
    other = Repo(repo.person, repo.person.desk / "sha256")
    repo.git("checkout-index", "--all", f"--prefix={other.folder}/")
    other.git("init", "--quiet", "--object-format=sha256")
    other.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False")
    assert told(other)["edited"] == ["app/infra/simple.py"]
    how = ("--drift", "--json", f"--template={growing_template}")
    [row] = json.loads(repo.person.types("fleet", other.folder, *how).stdout)["repos"]
    assert row["edited"] == ["app/infra/simple.py"]


def test_an_edit_that_was_taken_back_is_not_listed(repo: Repo) -> None:
    repo.edits("app/infra/simple.py", "PLAIN = True", "PLAIN = False")
    repo.write("app/infra/simple.py", repo.text("app/infra/simple.py").replace("False", "True"))
    assert told(repo)["edited"] == []


def test_files_of_an_uncommitted_step_are_not_listed_as_edited(repo: Repo) -> None:
    repo.advances()
    assert told(repo)["edited"] == []


def test_newer_versions_are_listed(repo: Repo, own_growing_template: Path) -> None:
    for version in ("v0.2.0", "v0.10.0", "v1.0.0rc1"):
        (own_growing_template / "template" / "version.txt").write_text(version)
        release(own_growing_template, version)
    assert told(repo)["newer_versions"] == ["v0.2.0", "v0.10.0"]
    assert "newer      v0.2.0, v0.10.0  (rung upgrade)\n" in repo.rung("status").stdout


def test_migration_heads_are_listed(repo: Repo) -> None:
    assert told(repo)["migration_heads"] == []
    for name in ("ours", "theirs"):
        repo.write(f"migrations/versions/{name}.py", f"revision = '{name}'\ndown_revision = None\n")
    assert told(repo)["migration_heads"] == ["ours", "theirs"]
    assert "migrations 2 heads (ours, theirs)\n" in repo.rung("status").stdout


def test_a_missing_template_is_a_problem_and_the_rest_is_shown(repo: Repo) -> None:
    repo.edits(".copier-answers.yml", "_src_path: ", "_src_path: /gone")
    found = told(repo)
    assert found["stage"] == 1
    assert found["edited"] is None
    assert "is no longer at" in found["problems"][0]


def test_edits_are_unknown_for_a_template_that_uses_other_features_of_copier(
    repo: Repo, own_growing_template: Path
) -> None:
    stage = own_growing_template / "template" / "docs" / "stage.md.jinja"
    stage.write_text(stage.read_text() + "{{ _copier_conf.answers_file }}\n")
    release(own_growing_template, "v0.2.0")
    repo.edits(".copier-answers.yml", "v0.1.0", "v0.2.0")
    assert told(repo)["edited"] is None


def test_a_folder_that_is_no_project_is_refused(person: Person) -> None:
    done = person.types("status")
    assert done.returncode == 1
    assert "is not a repo of Rung's" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_an_untouched_repo_has_no_edited_files(
    person: Person, template: Path, render: Render, variant: dict[str, Any]
) -> None:
    shutil.copytree(render(variant), person.desk / "shop")
    repo = Repo(person, person.desk / "shop")
    shutil.rmtree(repo.folder / ".git", ignore_errors=True)
    repo.git("init", "--quiet")
    repo.commit("Start")
    assert told(repo)["edited"] == []


@pytest.mark.parametrize("heavy", ["copier", "rich"])
def test_status_does_not_import_heavy_packages(repo: Repo, heavy: str) -> None:
    code = (
        "import sys; from pathlib import Path; from rung.status import status_of; "
        f"status_of(Path()); sys.exit({heavy!r} in sys.modules)"
    )
    assert repo.person.runs(sys.executable, "-c", code, at=repo.folder).returncode == 0
