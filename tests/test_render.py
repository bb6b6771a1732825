"""Every variant of a project, checked right after rendering."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO, Render
from variants import OPTIONS, QUESTIONS, VARIANTS, offered, variant_name

RUFF = Path(sys.executable).with_name("ruff")

# GitHub's own expressions are no leftovers. TOML uses `[[` too, and no Jinja here does.
LEFTOVER = re.compile(r"(?<!\$)\{\{|\{%|\{#")

every_variant = pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)


def files(project: Path, pattern: str = "*") -> list[Path]:
    return sorted(
        path
        for path in project.rglob(pattern)
        if path.is_file() and ".git" not in path.relative_to(project).parts
    )


def texts(project: Path) -> dict[str, str]:
    return {str(path.relative_to(project)): path.read_text() for path in files(project)}


def rendered_later(name: str) -> bool:
    """Alembic renders migrations later, `make dev` a page, Grafana and Prometheus render labels."""
    return name.endswith((".mako", "dashboard.json", "alerts.yaml", "dev/data.html"))


def assert_parses(project: Path) -> None:
    for path in files(project, "*.py"):
        compile(path.read_bytes(), path, "exec")
    for path in files(project, "*.toml"):
        tomllib.loads(path.read_text())
    for path in files(project, "*.json"):
        json.loads(path.read_text())
    for path in [*files(project, "*.yaml"), *files(project, "*.yml")]:
        assert list(yaml.safe_load_all(path.read_text())) != [None]


def ruff(project: Path, *check: str) -> str:
    """Ruff's complaints."""
    done = subprocess.run(
        [RUFF, *check, "--no-cache", "--quiet", "."],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


@every_variant
def test_no_jinja_is_left_over(render: Render, variant: dict[str, Any]) -> None:
    found = {
        name: LEFTOVER.findall(text)
        for name, text in texts(render(variant)).items()
        if LEFTOVER.search(text) and not rendered_later(name)
    }
    assert found == {}
    assert [path for path in files(render(variant)) if "{" in path.name] == []


@every_variant
def test_every_file_parses(render: Render, variant: dict[str, Any]) -> None:
    assert_parses(render(variant))


@every_variant
@pytest.mark.parametrize("check", [["format", "--check"], ["check"]], ids=" ".join)
def test_ruff_finds_nothing_by_the_projects_own_rules(
    render: Render, variant: dict[str, Any], check: list[str]
) -> None:
    assert ruff(render(variant), *check) == ""


@every_variant
def test_every_line_ends_cleanly(render: Render, variant: dict[str, Any]) -> None:
    for name, text in texts(render(variant)).items():
        assert not text or text.endswith("\n"), f"{name} does not end with a newline"
        assert not text.endswith("\n\n"), f"{name} ends with an empty line"
        assert "\r" not in text, f"{name} holds a carriage return"
        assert not re.search(r"[ \t]+$", text, re.MULTILINE), f"{name} has trailing spaces"


@every_variant
def test_every_answer_is_recorded(render: Render, variant: dict[str, Any]) -> None:
    recorded = yaml.safe_load((render(variant) / ".copier-answers.yml").read_text())
    asked = {
        name
        for name, question in QUESTIONS.items()
        if question.get("when") is not False  # a computed value, never asked
        and ("when" not in question or offered(name, variant["stage"]))
    }
    assert recorded.keys() == asked | {"_commit", "_src_path"}
    assert recorded.items() >= {key: variant[key] for key in variant if key in asked}.items()


@pytest.mark.slow
@pytest.mark.parametrize("option", OPTIONS)
def test_an_option_of_a_later_stage_changes_nothing(render: Render, option: str) -> None:
    plain, early = render({"stage": 1}), render({"stage": 1, option: True})
    assert texts(early) == texts(plain)


@every_variant
def test_no_rendered_file_is_ignored_by_git(
    render: Render, variant: dict[str, Any], tmp_path: Path
) -> None:
    project = render(variant)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    in_it = ["git", f"--git-dir={tmp_path}/.git", f"--work-tree={project}"]
    ignored = ["ls-files", "--others", "--ignored", "--exclude-standard", "--directory"]
    done = subprocess.run(
        [*in_it, *ignored], cwd=project, capture_output=True, text=True, check=True
    )
    assert done.stdout == ""


def test_nine_of_ten_files_contain_no_jinja() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "template"],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    with_jinja = [name for name in listed if name.endswith(".jinja")]
    assert len(with_jinja) <= 0.1 * len(listed)


# The first two hold most of what is hard.
HARD_NAMES = [
    """Tom & "Jerry's": Käse, 100% <feine> \\n Ware #1""",
    "- [x] *Ünïcödé* {{ not_jinja }} {% raw %} | > @ `!`",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ('\'single\' "double" """triple""" \\', "null", "店")
    ),
]


@pytest.mark.parametrize("name", HARD_NAMES)
def test_a_project_name_with_special_characters_is_shown_unchanged_everywhere(
    render: Render, name: str
) -> None:
    project = render(
        {"project_name": name, "project_slug": "shop", "description": name, "team": name}
    )
    assert_parses(project)
    assert tomllib.loads((project / "pyproject.toml").read_text())["project"]["description"] == name
    recorded = yaml.safe_load((project / ".copier-answers.yml").read_text())
    assert (recorded["project_name"], recorded["description"], recorded["team"]) == (name,) * 3
    assert name in (project / "README.md").read_text()
    assert title_in((project / "app" / "settings.py").read_text()) == name


@pytest.mark.parametrize("name", [*HARD_NAMES, "W" * 60, "Rosa’s – Оса"])  # noqa: RUF001
def test_ruff_accepts_a_project_whose_name_has_special_characters(
    render: Render, name: str
) -> None:
    project = render(
        {"project_name": name, "project_slug": "shop", "description": name, "team": name}
    )
    assert ruff(project, "format", "--check") == ""
    assert ruff(project, "check") == ""


def title_in(settings: str) -> str:
    found: dict[str, str] = {}
    literal = re.search(r"^    title: str = (.*)$", settings, re.MULTILINE)
    assert literal
    exec(f"title = {literal[1]}", found)  # noqa: S102 - Python itself reads the value
    return found["title"]


@every_variant
def test_no_repo_may_have_the_name_of_a_package_that_any_stage_needs(
    variant: dict[str, Any], render: Render
) -> None:
    """At stage 1 uv would lock such a repo, and never again after the stage that needs it."""
    settings = tomllib.loads((render(variant) / "pyproject.toml").read_text())
    groups = settings["dependency-groups"].values()
    needed = [*settings["project"]["dependencies"], *(one for group in groups for one in group)]
    names = {re.split(r"[^a-z0-9-]", one)[0] for one in needed if isinstance(one, str)}
    refused = (REPO / "generator/rung/packages.txt").read_text().splitlines()
    assert names - set(refused) == set(), "add them, with the packages that they need in uv.lock"
    assert refused == sorted(refused)
