"""A schema that changes under load answers nobody with an unexpected error."""

from pathlib import Path

import pytest
from checking import driven
from conftest import Render


@pytest.mark.slow
@pytest.mark.usefixtures("installed")
def test_no_statement_of_the_sample_fails_while_its_table_changes(
    render: Render, tmp_path: Path
) -> None:
    report = driven(render({"stage": 1}), tmp_path / "shop", "leaks", "schema_changes")

    unexpected = {
        route: count
        for route, count in report["statuses"].items()
        if route.rpartition(" ")[2] not in {"200", "201", "204", "404", "409", "503"}
    }
    assert unexpected == {}
    # Each route has also answered with success, so each statement has run.
    routes = {route.rpartition(" ")[0] for route in report["statuses"]}
    well = {route.rpartition(" ")[0] for route in report["statuses"] if " 20" in route}
    assert routes - well <= {"GET /uploads/{id}"}  # the file has no bytes yet
    assert {"PUT /me/password", "DELETE /tokens/current"} < well
    assert report["changes"] > 100
