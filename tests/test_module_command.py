"""`make module` writes a module that passes `make check` as it is."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from checking import make_check
from conftest import Render
from edits.carried import commit
from people import git


def make(project: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    return subprocess.run(
        ["make", *words],
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    git("init", "--quiet", cwd=tmp_path / "shop")
    commit(tmp_path / "shop", "Start")
    return tmp_path / "shop"


@pytest.mark.slow
def test_a_new_module_passes_make_check(project: Path) -> None:
    done = make(project, "module", "NAME=price_lists")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "class PriceList(" in (project / "app/price_lists/models.py").read_text()
    make_check(project, slow_tests=False)

    again = make(project, "module", "NAME=price_lists")
    assert again.returncode != 0
    assert "Nothing is written, because app/price_lists/__init__.py exists." in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "Reviews", "class", "../reviews", "re views", "9lives"])
def test_a_name_that_is_no_module_is_refused(project: Path, name: str) -> None:
    done = make(project, "module", f"NAME={name}")
    assert done.returncode != 0
    assert "Give a plural name: make module NAME=reviews" in done.stderr
    assert "Traceback" not in done.stderr
    assert git("status", "--porcelain", "app", "tests", "migrations", cwd=project) == ""
