"""A flood from one address, of any kind, fails nobody else's request and takes no memory.

To see the delays too, in a generated repo that holds leaks and floods of tests/drives:
SECONDS=20 python -m floods.drive
"""

from pathlib import Path

import pytest
from checking import driven
from conftest import Render

MIB_GROWN = 20


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("stage", [1, 4])
def test_a_flood_from_one_address_fails_no_request_of_others(
    render: Render, tmp_path: Path, stage: int
) -> None:
    report = driven(render({"stage": stage}), tmp_path / "shop", "leaks", "floods")

    assert len(report) > 10
    assert {name: one["failed"] for name, one in report.items() if one["failed"]} == {}
    grown = {name: one["grown MiB"] for name, one in report.items()}
    assert {name: mib for name, mib in grown.items() if mib > MIB_GROWN} == {}
