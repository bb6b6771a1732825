"""The command of Renovate's copier manager, on repos whose teams have edited Rung's files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPO
from growing import Repo, release
from people import COPIER

pytestmark = pytest.mark.slow

# lib/modules/manager/copier/artifacts.ts of Renovate. No --trust: Rung has no tasks.
COMMAND = (COPIER, "update", "--skip-answered", "--defaults", "--vcs-ref", "v0.2.0")


@pytest.fixture
def template(own_growing_template: Path) -> Path:
    wiring = own_growing_template / "template" / "app" / "infra" / "wiring.py.jinja"
    wiring.write_text(wiring.read_text().replace("RETRIES = 3", "RETRIES = 5"))
    release(own_growing_template, "v0.2.0")
    return own_growing_template


def updated(repo: Repo) -> Repo:
    done = repo.person.runs(*COMMAND, at=repo.folder)
    assert done.returncode == 0, done.stderr
    assert repo.answers()["_commit"] == "v0.2.0"
    assert repo.answers()["stage"] == 1
    return repo


def refused(repo: Repo) -> str:
    """Returns the error that a linter of `make check` prints, or nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "dev.lint_conflicts"],
        cwd=repo.folder,
        env=os.environ | {"PYTHONPATH": str(REPO / "template")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == (1 if done.stderr else 0)
    return done.stderr


def test_an_edit_in_other_lines_is_merged(repo: Repo, template: Path) -> None:
    repo.edits("app/infra/wiring.py", "WAIT_SECONDS = 5", "WAIT_SECONDS = 7")
    wiring = updated(repo).text("app/infra/wiring.py")
    assert "WAIT_SECONDS = 7\n\nRETRIES = 5\n" in wiring
    assert refused(repo) == ""


def test_a_conflict_is_marked_and_make_check_refuses_the_markers(
    repo: Repo, template: Path
) -> None:
    """Copier exits 0 on a conflict, and a Renovate before August 2026 commits the markers."""
    repo.edits("app/infra/wiring.py", "RETRIES = 3", "RETRIES = 9")
    wiring = updated(repo).text("app/infra/wiring.py")
    assert "RETRIES = 9" in wiring
    assert "RETRIES = 5" in wiring
    assert "Resolve the conflicts in app/infra/wiring.py." in refused(repo)
    repo.commit("As a bot would")
    assert "Resolve the conflicts in app/infra/wiring.py." in refused(repo)
