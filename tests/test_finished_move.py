"""A team may delete the code of a finished move, and its checks stay green."""

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Render
from edits.carried import commit
from people import git

MOVES = ("redis_sessions/move", "s3/move")


@pytest.mark.slow
def test_the_checks_pass_without_the_code_of_the_moves(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 4, "replica_routing": True}), project)
    git("init", "--quiet", cwd=project)
    for move in MOVES:
        shutil.rmtree(project / "app" / "infra" / move)
        shutil.rmtree(project / "tests" / "infra" / move)
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
