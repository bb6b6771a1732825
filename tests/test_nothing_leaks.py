"""No value gets into a log or a trace, however slow or broken a statement is."""

from pathlib import Path

import pytest
from checking import driven
from conftest import Render

WRITERS = {
    1: {"the app", "the receiver"},
    4: {"the app", "the receiver", "Postgres", "PgBouncer", "HAProxy"},
}


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize("stage", [1, 4])
def test_no_value_of_accounts_and_sessions_is_logged(
    render: Render, tmp_path: Path, stage: int
) -> None:
    report = driven(render({"stage": stage}), tmp_path / "shop", "leaks")

    assert report["leaked"] == {}
    # Otherwise the test has tried nothing.
    assert report["written"].keys() == WRITERS[stage]
    assert report["failed"] > report["statements"] > 10
    assert report["values"] > 50
