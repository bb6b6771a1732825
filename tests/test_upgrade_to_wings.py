"""A repo made before app/infra had folders upgrades to the version that has them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import REPO, working_tree
from growing import Repo
from people import Person, git
from variants import VARIANTS, asked, variant_name

# The last commit with a flat app/infra.
FLAT = "dc273e222fd3"

# Questions that came later: the default, and the first stage that asks.
LATER = {"module_databases": ("false", 4), "pooler": ("pgbouncer", 2)}
THEN = [one for one in VARIANTS if not any(one.get(name) for name in LATER)]
FULL = THEN[-1]
ENDS_AND_MIDDLE = [THEN[0], THEN[len(THEN) // 2], FULL]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The template as it was, tagged v0.1.0, and as it is now, tagged v0.2.0."""
    known = subprocess.run(["git", "cat-file", "-e", FLAT], cwd=REPO, capture_output=True)
    if known.returncode != 0 and not os.environ.get("CI"):
        pytest.skip(f"the history of this clone does not reach back to {FLAT}")
    folder = tmp_path_factory.mktemp("two-versions") / "rung"
    working_tree(folder)
    git("tag", "--delete", "v0.1.0", cwd=folder)
    now = git("rev-parse", "HEAD^{tree}", cwd=folder).strip()
    git("rm", "-r", "--quiet", ".", cwd=folder)
    old = subprocess.run(
        ["git", "archive", FLAT],
        cwd=REPO,
        check=True,
        capture_output=True,
    )
    subprocess.run(["tar", "--extract"], cwd=folder, input=old.stdout, check=True)
    git("add", "--all", "--force", cwd=folder)
    git("commit", "--quiet", "--message=Flat", cwd=folder)
    git("tag", "v0.1.0", cwd=folder)
    git("rm", "-r", "--quiet", "--cached", ".", cwd=folder)
    git("read-tree", now, cwd=folder)
    git("commit", "--quiet", "--message=Wings", cwd=folder)
    git("tag", "v0.2.0", cwd=folder)
    git("reset", "--hard", "--quiet", cwd=folder)
    git("clean", "-d", "--force", "--quiet", "-x", cwd=folder)
    return folder


@pytest.fixture
def old(two_versions: Path, person: Person, request: pytest.FixtureRequest) -> Repo:
    """A repo of the flat version, with a line of its team in each file that its team owns."""
    variant: dict[str, Any] = getattr(request, "param", FULL)
    known = {name: value for name, value in asked(variant).items() if name not in LATER}
    stage, *options = [f"{name}={str(value).lower()}" for name, value in known.items()]
    data = [word for option in options for word in ("--data", option)]
    git("checkout", "--quiet", "v0.1.0", cwd=two_versions)
    try:
        made = person.types(
            *("new", "shop", "--defaults", "--template", two_versions),
            *("--stage", stage.removeprefix("stage="), *data),
        )
    finally:
        git("checkout", "--quiet", "main", cwd=two_versions)
    assert made.returncode == 0, made.stderr
    repo = Repo(person, person.desk / "shop")
    repo.write("app/reviews/__init__.py", '"""Ours."""\n')
    repo.edits(
        "app/main.py", "from fastapi import FastAPI\n", "# Ours.\nfrom fastapi import FastAPI\n"
    )
    return repo


def answered(old: Repo) -> list[str]:
    """An upgrade adds nothing unasked: a stage may ask more questions than then."""
    stage = old.answers()["stage"]
    given = [f"{name}={default}" for name, (default, first) in LATER.items() if stage >= first]
    return [word for answer in given for word in ("--data", answer)]


@pytest.mark.parametrize("old", ENDS_AND_MIDDLE, ids=variant_name, indirect=True)
def test_a_flat_repo_upgrades_without_a_conflict(old: Repo) -> None:
    migrations = old.text("migrations/versions/0001_the_shop.py")
    done = old.rung("upgrade", *answered(old))
    assert done.returncode == 0, done.stdout + done.stderr
    assert old.answers()["_commit"] == "v0.2.0"
    assert "# Ours." in old.text("app/main.py")
    assert old.text("migrations/versions/0001_the_shop.py") == migrations
    assert not (old.folder / "app/infra/consistency.py").exists()
    wings = {path.parent.name for path in (old.folder / "app/infra").glob("*/__init__.py")}
    assert ("cache" in wings) == (old.answers()["stage"] >= 3)


def test_an_edit_in_a_file_that_moved_is_refused_with_a_reason(old: Repo) -> None:
    old.edits("app/infra/cache.py", "DUE_AFTER = 0.8", "DUE_AFTER = 0.5")
    reason = old.refuses("upgrade", *answered(old))
    assert "deletes files that you have edited: app/infra/cache.py" in reason
    assert "DUE_AFTER = 0.5" in old.text("app/infra/cache.py")
