"""Tells the team's files of a generated repo from Rung's."""

import re
import stat
from pathlib import Path

from people import content

RUNGS_FOLDERS = ("app/infra/", "tests/infra/", "dev/", "deploy/", "docs/guide/", "docs/runbooks/")
RUNGS_FILES = ("docs/stage.md",)
RECORD = ".copier-answers.yml"

# The two keys of pyproject.toml that Rung owns. Each is a list on one line or on several.
RUNGS_DEPENDENCIES = re.compile(r"^infra(-dev)? = \[.*?\]\n", re.MULTILINE | re.DOTALL)


def is_rungs(name: str) -> bool:
    return name.startswith(RUNGS_FOLDERS) or name in RUNGS_FILES


def without_rungs_lists(pyproject: str) -> str:
    head, table, tail = pyproject.partition("[dependency-groups]\n")
    groups, next_table, rest = tail.partition("\n[")
    return head + table + RUNGS_DEPENDENCIES.sub("", groups) + next_table + rest


def rungs_lists(pyproject: str) -> list[str]:
    groups = pyproject.partition("[dependency-groups]\n")[2].partition("\n[")[0]
    return [found[0] for found in RUNGS_DEPENDENCIES.finditer(groups)]


def everything(project: Path) -> dict[str, tuple[str, bytes]]:
    """Each path, folders included: its kind and mode, and its content or link target."""
    return {
        path.relative_to(project).as_posix(): (stat.filemode(path.lstat().st_mode), content(path))
        for top in project.iterdir()
        if top.name != ".git"
        for path in (top, *top.rglob("*"))
    }


def teams_own(project: Path) -> dict[str, tuple[str, bytes]]:
    """All that advancing must not touch: pyproject.toml counts without Rung's two lists."""
    own = {
        name: found
        for name, found in everything(project).items()
        if not is_rungs(name) and not is_rungs(f"{name}/") and name != RECORD
    }
    if "pyproject.toml" in own:
        mode, written = own["pyproject.toml"]
        own["pyproject.toml"] = (mode, without_rungs_lists(written.decode()).encode())
    return own


def rungs_own(project: Path) -> dict[str, tuple[str, bytes]]:
    """All that belongs to the stage: of pyproject.toml the two lists."""
    own = {name: found for name, found in everything(project).items() if is_rungs(name)}
    lists = "".join(rungs_lists((project / "pyproject.toml").read_text()))
    return own | {"pyproject.toml": ("its lists", lists.encode())}
