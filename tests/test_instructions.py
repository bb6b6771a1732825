"""A request costs no more processor instructions than it did, counted without a clock."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import REPO, Render

# Of a bare FastAPI's hello. From stage 3 the item and the page come from the cache.
OF_HELLO = {
    1: {"item": 2.30, "page": 4.14, "me": 2.62, "order": 8.3},
    3: {"item": 3.31, "page": 4.80, "me": 3.24, "order": 10.0},
}
TOLERANCE = 0.05  # runs differ by 0.01, and by 0.02 beside eight busy processes


@pytest.mark.slow
@pytest.mark.parametrize("stage", OF_HELLO)
def test_a_request_takes_as_many_instructions_as_it_did(
    render: Render, tmp_path: Path, stage: int
) -> None:
    if shutil.which("valgrind") is None and not os.environ.get("CI"):
        pytest.skip("not installed: apt-get install valgrind")
    shop = tmp_path / "shop"
    shutil.copytree(render({"stage": stage}), shop)

    program = REPO / "benchmarks" / "instructions.py"
    counted = subprocess.run(
        ["sh", "dev/uv", "run", "--quiet", "python", program, "--json"],
        cwd=shop,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )

    assert counted.returncode == 0, counted.stderr[-5000:]
    of_hello = json.loads(counted.stdout.splitlines()[-1])
    for route, before in OF_HELLO[stage].items():
        assert of_hello[route] == pytest.approx(before, rel=TOLERANCE), (
            f"{route} took {before} times the instructions of hello, now {of_hello[route]}:"
            " say why in the commit, and write the new number down here"
        )
