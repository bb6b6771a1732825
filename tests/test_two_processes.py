"""The runbook about deploys: one that nobody notices, before there are copies."""

from pathlib import Path

import pytest
from checking import driven
from conftest import Render


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_two_processes_are_replaced_one_after_the_other_and_nobody_notices(
    render: Render, tmp_path: Path
) -> None:
    report = driven(render({"stage": 2}), tmp_path / "shop", "two_processes")

    assert report["failed"] == {}
    assert report["asked again"] <= 5
    assert min(report["answered"].values()) > 500
