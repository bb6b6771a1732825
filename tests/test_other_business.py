"""A team that deletes the whole sample and builds something else edits no file of Rung's."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from carrying import WAYS
from checking import make_check
from conftest import REPO, Render
from edits.carried import commit, conflicts
from people import git
from variants import LONGEST, STEP_BY_STEP
from wall import rungs_own

BUSINESS = REPO / "tests" / "other_business"

# The sample: its modules, migration, tests, seed and load.
SAMPLE = (
    "app/accounts",
    "app/catalog",
    "app/orders",
    "app/uploads",
    "app/seed.py",
    "app/paging.py",
    "migrations/versions/0001_the_shop.py",
    "scripts/tour.sh",
    "tests/test_accounts.py",
    "tests/test_catalog.py",
    "tests/test_errors.py",
    "tests/test_openapi.py",
    "tests/test_orders.py",
    "tests/test_uploads.py",
)


def replace_the_sample(project: Path) -> None:
    for name in SAMPLE:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.copytree(BUSINESS, project, dirs_exist_ok=True)
    contracts = project / "pyproject.toml"
    text = contracts.read_text(encoding="utf-8")
    text = text.replace('    "app.seed",\n', "").replace('["app.main", "app.seed"]', '["app.main"]')
    joins = '    "app.articles.queries -> app.people.models",\n'
    text = text.replace("ignore_imports = [\n", f"ignore_imports = [\n{joins}")
    contracts.write_text(text, encoding="utf-8")


def team_of(render: Render, project: Path, variant: dict[str, Any]) -> dict[str, object]:
    """Writes a repo whose team has replaced the sample. Returns Rung's files as they were."""
    shutil.copytree(render(variant), project)
    before: dict[str, object] = dict(rungs_own(project))
    replace_the_sample(project)
    git("init", "--quiet", "--initial-branch=main", cwd=project)
    commit(project, "Another business")
    return before


@pytest.mark.slow
def test_make_check_passes_without_the_sample(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "gazette"
    before = team_of(render, project, LONGEST[0])

    make_check(project)

    after: dict[str, object] = dict(rungs_own(project))
    assert {name: after.get(name) for name in before} == before


@pytest.mark.slow
def test_another_business_climbs_the_ladder(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "gazette"
    team_of(render, project, STEP_BY_STEP[0])
    for variant in STEP_BY_STEP[1:]:
        WAYS["rung"](project, variant)
        assert conflicts(project) == []
        commit(project, "Another stage")
    make_check(project, slow_tests=False)


@pytest.mark.slow
@pytest.mark.parametrize("target", ["load"])
def test_the_commands_work_without_the_sample(render: Render, tmp_path: Path, target: str) -> None:
    project = tmp_path / "gazette"
    team_of(render, project, LONGEST[-1])
    done = subprocess.run(
        ["make", target, "DURATION=3s", "USERS=3"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/newest" in done.stdout + done.stderr
