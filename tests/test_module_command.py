"""`make module` writes a module that passes `make check` as it is."""

import shutil
from pathlib import Path

import pytest
from checking import make_check
from conftest import Render
from edits.carried import commit
from people import git
from serving import run


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    git("init", "--quiet", cwd=tmp_path / "shop")
    commit(tmp_path / "shop", "Start")
    return tmp_path / "shop"


@pytest.mark.slow
def test_a_new_module_passes_make_check(project: Path) -> None:
    done = run("make", "module", "NAME=price_lists", within=project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "class PriceList(" in (project / "app/price_lists/models.py").read_text()
    make_check(project, slow_tests=False)

    again = run("make", "module", "NAME=price_lists", within=project)
    assert again.returncode != 0
    assert "Nothing is written, because app/price_lists/__init__.py exists." in again.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["", "Reviews", "class", "../reviews", "re views", "9lives"])
def test_a_name_that_is_no_module_is_refused(project: Path, name: str) -> None:
    done = run("make", "module", f"NAME={name}", within=project)
    assert done.returncode != 0
    assert "Give a plural name: make module NAME=reviews" in done.stderr
    assert "Traceback" not in done.stderr
    assert git("status", "--porcelain", "app", "tests", "migrations", cwd=project) == ""
