"""A flood from one address, of any kind, fails nobody else's request and takes no memory.

To see the delays too, in a generated repo that holds tests/leaks and tests/floods:
SECONDS=20 python -m floods.drive
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, Render

MIB_GROWN = 20


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("stage", [1, 4])
def test_a_flood_from_one_address_fails_nobody_else(
    render: Render, tmp_path: Path, stage: int
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": stage}), project)
    for folder in ("leaks", "floods"):
        shutil.copytree(REPO / "tests" / folder, project / folder)

    done = subprocess.run(
        ["sh", "dev/uv", "run", "--quiet", "python", "-m", "floods.drive"],
        cwd=project,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-5000:]
    report = json.loads(done.stdout)
    assert len(report) > 10
    assert {name: one["failed"] for name, one in report.items() if one["failed"]} == {}
    grown = {name: one["grown MiB"] for name, one in report.items()}
    assert {name: mib for name, mib in grown.items() if mib > MIB_GROWN} == {}
