"""A team may delete the code of a finished move, and its checks stay green."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Render, working_tree
from edits.carried import commit
from growing import Repo, release
from people import COPIER, Person, git
from variants import VARIANTS

MOVES = ("redis_sessions/move", "s3/move")
DELETED = (
    *(f"{place}/{move}" for move in MOVES for place in ("app/infra", "tests/infra")),
    *(f"dev/{move}.mk" for move in MOVES),
)


def delete_the_moves(project: Path) -> None:
    for name in DELETED:
        path = project / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


@pytest.mark.slow
def test_the_checks_pass_without_the_code_of_the_moves(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(VARIANTS[-1]), project)
    git("init", "--quiet", cwd=project)
    delete_the_moves(project)
    for place in ("app", "tests"):
        shutil.rmtree(project / place / "infra" / "module_databases" / "move")
    commit(project, "The moves are finished")
    tests = ["tests/infra/redis_sessions", "tests/infra/s3", "tests/infra/test_sessions.py"]
    for command in (
        ["ruff", "check"],
        ["mypy"],
        ["lint-imports"],
        ["pytest", "-n", "auto", "-m", "not slow", *tests],
    ):
        done = subprocess.run(
            ["sh", "dev/uv", "run", "--quiet", *command],
            cwd=project,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["rung", "copier"])
def test_an_update_leaves_a_finished_move_deleted(person: Person, tmp_path: Path, way: str) -> None:
    person.patience = 180
    template = working_tree(tmp_path / "template")
    made = person.types("new", "shop", "--defaults", "--stage", "4", "--template", template)
    assert made.returncode == 0, made.stderr
    repo = Repo(person, person.desk / "shop")
    delete_the_moves(repo.folder)
    commit(repo.folder, "The moves are finished")
    for name in DELETED:
        path = template / "template" / name
        for file in path.rglob("*.py") if path.is_dir() else [path]:
            file.write_text(file.read_text() + "# Changed by the next version.\n")
    release(template, "v0.2.0")

    if way == "rung":
        done = repo.rung("upgrade")
    else:
        done = person.runs(COPIER, "update", "--defaults", at=repo.folder)

    assert done.returncode == 0, done.stdout + done.stderr
    assert repo.answers()["_commit"] == "v0.2.0"
    assert [name for name in DELETED if (repo.folder / name).exists()] == []
    assert git("ls-files", "--unmerged", cwd=repo.folder) == ""
