"""A year of a team's edits survives every journey (law: nothing is lost)."""

import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from carrying import WAYS, Way
from checking import make_check
from conftest import Render
from edits.carried import Outcome, carry
from edits.corpus import EDITS, EVERYWHERE, GROUPS, Edit
from edits.report import REPORT, all_runs, rows, written
from variants import JOURNEYS, LONGEST, STEP_BY_STEP, Journey, described

type Carry = Callable[[list[Edit], Journey, Way], Outcome]

ABOUT_PYPROJECT = ("dependencies", "configuration")

AT_TWO_GROUPS = pytest.mark.parametrize("group", EVERYWHERE)
OVER_EVERY_JOURNEY = pytest.mark.parametrize("journey", JOURNEYS, ids=described)
BY_EVERY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.fixture
def carrying(render: Render, tmp_path: Path) -> Carry:
    def carried(edits: list[Edit], journey: Journey, way: Way) -> Outcome:
        project = tmp_path / "shop"
        return carry(render(journey[0]), render(journey[-1]), project, edits, journey, way)

    return carried


# `make edits-report` carries each edit alone as well, and another group over every journey.
@pytest.mark.slow
@OVER_EVERY_JOURNEY
def test_many_edits_together_survive_every_journey(carrying: Carry, journey: Journey) -> None:
    assert carrying(GROUPS["all that go together"], journey, WAYS["in process"]) == Outcome()


@pytest.mark.slow
@pytest.mark.parametrize("group", [group for group in GROUPS if group not in EVERYWHERE])
def test_every_group_of_edits_survives_the_whole_ladder(carrying: Carry, group: str) -> None:
    assert carrying(GROUPS[group], STEP_BY_STEP, WAYS["in process"]) == Outcome()


@pytest.mark.slow
@BY_EVERY_WAY
@AT_TWO_GROUPS
def test_many_edits_together_survive_each_way_to_advance(
    carrying: Carry, group: str, way: Way
) -> None:
    assert carrying(GROUPS[group], LONGEST, way) == Outcome()


@pytest.mark.slow
@BY_EVERY_WAY
def test_the_teams_dependencies_stay_apart_from_those_of_a_stage(
    render: Render, tmp_path: Path, way: Way
) -> None:
    made, fresh = (render(end) for end in LONGEST)
    edits = [one for one in GROUPS["all that go together"] if one.topic in ABOUT_PYPROJECT]
    assert carry(made, fresh, tmp_path / "shop", edits, LONGEST, way) == Outcome()
    carried = groups_of(tmp_path / "shop")["infra"]
    assert carried == groups_of(fresh)["infra"] != groups_of(made)["infra"]


def groups_of(project: Path) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = tomllib.loads((project / "pyproject.toml").read_text())[
        "dependency-groups"
    ]
    return groups


def test_the_corpus_has_at_least_60_edits_with_different_names() -> None:
    names = [one.name for one in EDITS]
    assert len(names) >= 60
    assert sorted(set(names)) == sorted(names)
    assert all(len(edits) >= 20 for edits in GROUPS.values())


def test_the_report_in_the_docs_is_of_this_corpus_and_these_journeys() -> None:
    outcomes = dict.fromkeys(all_runs(), (0, 0))
    assert REPORT.read_text() == written(list(rows(outcomes)))


# No edit changes the code that Rung's tests run. `test_other_business` runs them after a journey.
@pytest.mark.slow
def test_make_check_passes_after_the_journey(render: Render, tmp_path: Path) -> None:
    project = tmp_path / "shop"
    made, fresh = (render(end) for end in LONGEST)
    edits = GROUPS["all that go together"]
    assert carry(made, fresh, project, edits, LONGEST, WAYS["in process"]) == Outcome()
    make_check(project, slow_tests=False, tests="--ignore=tests/infra")
