"""A client cannot tell at which stage the service is: the same requests get the same answers."""

from collections import Counter
from pathlib import Path

import pytest
from checking import driven
from conftest import Render


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_the_same_requests_get_the_same_answers_at_stages_1_and_4(
    render: Render, tmp_path: Path
) -> None:
    drives = ("leaks", "same_answers")
    last = render({"stage": 4, "replica_routing": True})
    at_1 = driven(render({"stage": 1}), tmp_path / "one", *drives)
    at_4 = driven(last, tmp_path / "four", *drives)

    for number, (one, four) in enumerate(zip(at_1, at_4, strict=True)):
        assert one == four, f"after {at_1[max(number - 5, 0) : number]}"
    # Otherwise the test has tried little.
    counted = Counter((answer[0].split(" ")[0], answer[1]) for answer in at_1 if len(answer) > 1)
    assert len(counted) > 20
    assert counted["POST", "201"] > 30
    assert counted["GET", "200"] > 100
