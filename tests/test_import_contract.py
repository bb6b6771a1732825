"""The team's import rules hold for a module that is new, without a line in pyproject.toml."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import Render

pytestmark = pytest.mark.slow


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    return tmp_path / "shop"


def lint_imports(project: Path, **modules: str) -> str:
    """The output of import-linter for the project with these modules. A _ in a name is a dot."""
    for name, text in modules.items():
        path = project / "app" / f"{name.replace('_', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    done = subprocess.run(
        [
            os.environ.get("UV", "uv"),
            "run",
            "--quiet",
            "--no-project",
            "--with",
            "import-linter~=2.13",
            "lint-imports",
        ],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == ("0 broken" in done.stdout), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("private", ["models", "routes", "schemas", "prices"])
def test_a_new_module_may_not_reach_into_another(project: Path, private: str) -> None:
    said = lint_imports(
        project,
        **{f"baskets_{private}": "", "reviews_service": f"from app.baskets import {private}\n"},
    )

    assert f"app.reviews.service -> app.baskets.{private}" in said


@pytest.mark.parametrize("public", ["service", "queries"])
def test_a_new_module_may_use_what_another_offers(project: Path, public: str) -> None:
    said = lint_imports(
        project,
        **{
            "baskets_models": "",
            f"baskets_{public}": "from app.baskets import models\n",
            "reviews_routes": f"from app.baskets import {public}\nfrom app import errors\n",
        },
    )

    assert "0 broken" in said


@pytest.mark.parametrize("part", ["service", "queries", "models", "prices"])
def test_infrastructure_may_not_use_a_new_module(project: Path, part: str) -> None:
    said = lint_imports(
        project, **{f"baskets_{part}": "", "infra_extra": f"from app.baskets import {part}\n"}
    )

    assert f"app.infra.extra -> app.baskets.{part}" in said


def test_a_new_module_may_use_infrastructure(project: Path) -> None:
    assert "0 broken" in lint_imports(project, baskets_models="from app.infra import database\n")
