"""An untouched project that advanced equals a new one of that stage, byte for byte."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from carrying import WAYS, Way, advance
from conftest import Render
from people import git
from variants import JOURNEYS, LONGEST, STEP_BY_STEP, Journey, described
from wall import everything

ONE_STEP = [journey for journey in JOURNEYS if len(journey) == 2]

type Start = Callable[[dict[str, Any]], Path]


@pytest.fixture
def start(render: Render, tmp_path: Path) -> Start:
    """A new project of this variant, committed."""

    def started(variant: dict[str, Any]) -> Path:
        project = tmp_path / "shop"
        shutil.copytree(render(variant), project, symlinks=True)
        git("init", "--quiet", "--initial-branch=main", cwd=project)
        commit(project)
        return project

    return started


def commit(project: Path) -> None:
    git("add", "--all", cwd=project)
    git("commit", "--quiet", "--message=So far", "--allow-empty", cwd=project)


def travel(project: Path, journey: Journey, way: Way = WAYS["in process"]) -> None:
    for variant in journey[1:]:
        advance(project, variant, way)
        commit(project)


# After one step it is a new project, byte for byte. So a journey of several steps proves no more,
# and one is enough.
@pytest.mark.slow
@pytest.mark.parametrize("journey", [*ONE_STEP, STEP_BY_STEP], ids=described)
def test_an_untouched_project_becomes_equal_to_a_new_one(
    start: Start, render: Render, journey: Journey
) -> None:
    project = start(journey[0])
    travel(project, journey)
    assert everything(project) == everything(render(journey[-1]))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_to_advance_gives_the_same(start: Start, render: Render, way: Way) -> None:
    project = start(LONGEST[0])
    travel(project, LONGEST, way)
    assert everything(project) == everything(render(LONGEST[-1]))


@pytest.mark.slow
def test_advancing_again_changes_nothing(start: Start) -> None:
    project = start(LONGEST[0])
    travel(project, LONGEST)
    advance(project, LONGEST[-1])
    assert git("status", "--porcelain", "--ignored", cwd=project) == ""


def test_the_comparison_sees_an_empty_folder_and_a_changed_mode(
    start: Start, render: Render
) -> None:
    project = start(LONGEST[0])
    (project / "app" / "left").mkdir()
    (project / "Makefile").chmod(0o755)
    as_made = everything(render(LONGEST[0]))
    odd = {name for name, found in everything(project).items() if as_made.get(name) != found}
    assert odd == {"app/left", "Makefile"}
