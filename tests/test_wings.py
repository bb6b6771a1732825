"""The house: stage 1 lies flat in app/infra, and each folder is one capability that came later."""

import ast
import re
from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import REPO, Render
from variants import VARIANTS, variant_name
from wall import is_rungs

EXCLUDE: list[str] = yaml.safe_load((REPO / "copier.yml").read_text(encoding="utf-8"))["_exclude"]

# A wing's line names a folder without its place, so that it holds in app/infra, dev and the rest.
WINGS = [found[1] for line in EXCLUDE if (found := re.search(r"%\}([\w.-]+)\{%", line))]

# It has enough files for a folder, and exists from stage 1 on: docs/decisions/020.
AT_ONCE = {"doctor"}

ARRIVES = {
    "slow_queries": 2,
    "pooling": 2,
    "cache": 3,
    "telemetry": 3,
    "redis_sessions": 4,
    "s3": 4,
    "copies": 4,
}

LARGEST = VARIANTS[-1]
MOST_LEVELS = 10  # the doctor of modules' replicas asks that of replicas; without both options 9

type Imports = dict[str, set[str]]


def ladder(variant: dict[str, Any]) -> set[str]:
    """The capabilities that this stage has, with these options."""
    stage, has_replicas = variant["stage"], variant["replica_routing"]
    found = {wing for wing, arrives in ARRIVES.items() if stage >= arrives}
    return (
        found
        | ({"replicas"} if has_replicas else set())
        | ({"own_writes"} if has_replicas or stage >= 3 else set())
        | ({"module_databases"} if variant["module_databases"] else set())
    )


@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_the_folders_of_app_infra_are_the_capabilities_of_the_stage(
    render: Render, variant: dict[str, Any]
) -> None:
    folders = {path.name for path in (render(variant) / "app" / "infra").iterdir() if path.is_dir()}

    assert folders - AT_ONCE == ladder(variant)
    assert folders <= set(WINGS) | AT_ONCE
    assert folders >= AT_ONCE


def test_no_file_of_the_team_lies_under_the_name_of_a_wing(render: Render) -> None:
    project = render(LARGEST)

    names = (path.relative_to(project).as_posix() for path in project.rglob("*"))
    of_the_team = [name for name in names if not is_rungs(name)]

    assert [name for name in of_the_team if set(name.split("/")) & (set(WINGS) | AT_ONCE)] == []


def test_each_python_file_of_rungs_says_in_its_first_words_what_it_is_for(render: Render) -> None:
    project = render(LARGEST)
    signed = (path for path in project.rglob("*.py") if is_rungs(str(path.relative_to(project))))

    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in signed}

    assert [path for path, module in modules.items() if module.body and not summary(module)] == []


def summary(module: ast.Module) -> bool:
    """The docstring is one line. A blank line follows if there is more."""
    first, _, more = (ast.get_docstring(module) or "").partition("\n")
    return bool(first) and (not more or more.startswith("\n"))


def test_copier_yml_needs_few_lines_to_say_which_stage_owns_which_file() -> None:
    assert len([line for line in EXCLUDE if "{%" in line]) <= 35


def test_the_imports_of_the_app_have_few_levels_and_no_circle(render: Render) -> None:
    try:
        chain = longest_chain(imports_of(render(LARGEST)))
    except CycleError as error:
        pytest.fail(f"These modules import each other: {' -> '.join(error.args[1])}")

    assert len(chain) <= MOST_LEVELS, " -> ".join(chain)


def longest_chain(imports: Imports) -> list[str]:
    """From a module that nothing here imports down to one that imports nothing here."""
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(imports).static_order():
        below = [chains[imported] for imported in imports[module]]
        chains[module] = [module, *max(below, key=len, default=[])]
    return max(chains.values(), key=len)


def imports_of(project: Path) -> Imports:
    """Each module of app/ with those that it imports, also those for type checkers only,
    but without commands that start the app, such as `log_out`."""
    files = {module_of(path, project): path for path in (project / "app").rglob("*.py")}
    found = {name: set(imported(path, files)) - {name} for name, path in files.items()}
    return {name: below for name, below in found.items() if "app.main" not in below}


def module_of(path: Path, project: Path) -> str:
    return ".".join(path.relative_to(project).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, modules: Iterable[str]) -> Iterable[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                longer = f"{node.module}.{name.name}"
                if longer in modules:
                    yield longer
                elif node.module in modules:
                    yield node.module
