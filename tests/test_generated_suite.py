"""A generated project passes `make check`."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from checking import make_check
from conftest import Render
from variants import STAGES, VARIANTS, variant_name

# The tests that the variant before it does not have. Its other tests are the same.
ALL_OPTIONS = VARIANTS[-1]
ONLY_THERE = "tests/infra/module_databases tests/test_orders.py"


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_make_check_passes(render: Render, tmp_path: Path, variant: dict[str, Any]) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render(variant), project)
    subprocess.run(["git", "init", "--quiet", project], check=True)
    # The last stage with replicas has the slow tests of all stages.
    is_first = variant["stage"] == STAGES[0]
    is_last = variant["stage"] == STAGES[-1] and variant["replica_routing"]
    tests = ONLY_THERE if variant == ALL_OPTIONS else ""
    make_check(project, slow_tests=is_first or is_last, tests=tests)
