"""A generated project passes `make check`."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from checking import make_check
from conftest import Render
from edits.carried import commit
from people import git
from variants import STAGES, VARIANTS, at, variant_name

ALL_OPTIONS = VARIANTS[-1]
BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
GONE = re.compile(r'\[(?:attr-defined|call-arg)\]|named "(?:app|dev)\b')
# The tests that the variant before it does not have. Its other tests are the same.
ONLY_THERE = "tests/infra/module_databases tests/test_orders.py"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_make_check_passes(render: Render, tmp_path: Path, variant: dict[str, Any]) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(variant), project)
    subprocess.run(["git", "init", "--quiet", project], check=True)
    stage = variant["stage"]
    # The first stage and the last one with replicas run all tests: together they have each.
    is_last = stage == STAGES[-1] and variant["replica_routing"]
    tests = ""
    if variant == ALL_OPTIONS:
        tests = ONLY_THERE
    elif stage != STAGES[0] and not is_last:
        simpler = at(stage, ()) if variant["replica_routing"] else at(stage - 1, ())
        tests = " ".join(teams_or_new(project, render(simpler)))
    make_check(project, slow_tests=is_last or stage == STAGES[0], tests=tests)


def teams_or_new(project: Path, simpler: Path) -> list[str]:
    """The team's tests, and those that the simpler project lacks or has in another form."""
    names = [test.relative_to(project) for test in sorted(project.glob("tests/**/test_*.py"))]
    return [
        str(name)
        for name in names
        if name.parent == Path("tests")
        or not (simpler / name).exists()
        or (project / name).read_bytes() != (simpler / name).read_bytes()
    ]


@pytest.mark.slow
def test_tests_that_a_git_hook_runs_change_no_commit(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 1}), project)
    git("init", "--quiet", cwd=project)
    commit(project, "Start")
    hook = project / ".git/hooks/pre-commit"
    hook.write_text(
        "#!/bin/sh\nexec sh dev/uv run -q pytest -q tests/infra/test_conflict_markers.py\n",
        encoding="utf-8",
    )
    hook.chmod(0o755)
    # In a worktree, git gives the hook the place of its repository and of its index.
    tree = tmp_path / "tree"
    git("worktree", "add", "--quiet", str(tree), cwd=project)
    (tree / "README.md").write_text("Ours\n", encoding="utf-8")
    git("commit", "--quiet", "--all", "--message=Ours", cwd=tree)
    assert git("show", "--format=", "--name-only", cwd=tree) == "README.md\n"
    assert git("rev-parse", "--is-bare-repository", cwd=project) == "false\n"


@pytest.mark.slow
def test_the_benchmarks_use_only_what_a_project_has(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(ALL_OPTIONS), project)
    # Not floods.py: a drive has the same name, and mypy takes one for the other.
    files = [file for file in BENCHMARKS.rglob("*.py") if file.name != "floods.py"]
    options = ["--implicit-reexport", "--follow-imports=silent", "--explicit-package-bases"]
    checked = subprocess.run(
        ["sh", "dev/uv", "run", "--quiet", "mypy", *options, *files],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"checked {len(files)} source files" in checked.stdout, checked.stdout + checked.stderr
    assert [line for line in checked.stdout.splitlines() if GONE.search(line)] == []
