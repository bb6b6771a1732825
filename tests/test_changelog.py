"""The changelog names the new place of each moved file."""

import re

from conftest import REPO, Render
from variants import LONGEST

ROW = re.compile(r"^\| `((?:app/infra|dev)/\w+\.py)` \| (.+) \|$", re.MULTILINE)


def expanded(path: str) -> list[str]:
    """a/{b,c}.py is a/b.py and a/c.py."""
    found = re.fullmatch(r"(.*)\{(.*)\}(.*)", path)
    return [f"{found[1]}{name}{found[3]}" for name in found[2].split(",")] if found else [path]


def test_the_changelog_names_files_that_exist(render: Render) -> None:
    project = render(LONGEST[-1])
    rows = ROW.findall((REPO / "CHANGELOG.md").read_text(encoding="utf-8"))
    named = {
        path
        for _, cell in rows
        for code in re.findall(r"`([^`]+)`", cell)
        for path in expanded(code)
    }

    assert len(rows) >= 60
    assert sorted(path for path in named if not (project / path).is_file()) == []
