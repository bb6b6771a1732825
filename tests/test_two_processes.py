"""Step 0 of the runbook to stage 2: a deploy that nobody notices, before there are copies."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, Render


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_two_processes_are_replaced_one_after_the_other_and_nobody_notices(
    render: Render, tmp_path: Path
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": 2}), project)
    shutil.copytree(REPO / "tests/two_processes", project / "two_processes")

    done = subprocess.run(
        ["sh", "dev/uv", "run", "--quiet", "python", "-m", "two_processes.drive"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-5000:]
    report = json.loads(done.stdout)
    assert report["failed"] == {}
    assert report["asked again"] <= 5
    assert min(report["answered"].values()) > 500
