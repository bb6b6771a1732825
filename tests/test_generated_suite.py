"""A generated project passes its own checks: what its team runs before every commit."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from variants import VARIANTS, spoken

MINUTES = 60


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=spoken)
def test_make_check_passes(render: Render, tmp_path: Path, variant: dict[str, Any]) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(variant), project)
    subprocess.run(["git", "init", "--quiet", project], check=True)
    done = subprocess.run(
        ["make", "check"],
        cwd=project,
        env={name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10 * MINUTES,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
