# Rung's file: advancing to another stage may change it.
"""`make check` refuses the conflict markers that a bot has left."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dev.lint_conflicts import marked_files


def test_a_file_with_conflict_markers_is_found_committed_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In a git hook, variables lead to the repository of the commit.
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    (tmp_path / "clean.py").write_text("ours = 1 << 7\n")
    (tmp_path / "notes.md").write_text("=======\n")
    assert marked_files(str(tmp_path)) == []
    # In two parts, or `make check` would refuse this file.
    (tmp_path / "both.yaml").write_text("<" * 7 + " before updating\nours: 1\n")
    assert marked_files(str(tmp_path)) == ["both.yaml"]
    git = shutil.which("git") or "git"
    subprocess.run([git, "init", "--quiet"], cwd=tmp_path, check=True)
    assert marked_files(str(tmp_path)) == ["both.yaml"]
    subprocess.run([git, "add", "--all"], cwd=tmp_path, check=True)
    assert marked_files(str(tmp_path)) == ["both.yaml"]
