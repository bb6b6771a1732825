"""The patch of the hand-over applies, and no crash between two databases loses an order."""

import shutil
from pathlib import Path

import pytest
from checking import driven
from conftest import Render
from people import git
from variants import VARIANTS

PATCH = "docs/guide/module_databases/orders.patch"


@pytest.fixture
def patched(render: Render, tmp_path: Path) -> Path:
    project = tmp_path / "patched"
    shutil.copytree(render(VARIANTS[-1]), project)
    git("init", "--quiet", cwd=project)
    git("apply", PATCH, cwd=project)
    return project


def test_the_patch_says_what_it_is_and_fits_the_sample(patched: Path) -> None:
    assert (
        "hand-over.md" in (patched / PATCH).read_text(encoding="utf-8").partition("diff --git")[0]
    )
    assert "elsewhere(write, catalog.sessions)" in (patched / "app/orders/service.py").read_text()


@pytest.mark.slow
def test_a_crash_between_two_databases_neither_loses_nor_doubles_an_order(
    patched: Path, tmp_path: Path
) -> None:
    """The team's tests of orders with one database, with two, and with crashes between two."""
    outcome = driven(patched, tmp_path / "shop", "hand_over")

    assert [kind for _, kind in outcome] == ["passed"]
