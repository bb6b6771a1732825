# Rung's file: advancing to another stage may change it.
import os
import subprocess
import sys

import pytest

from dev.pytest_plugin import Services

CREATE_APP = [sys.executable, "-c", "from app.main import create_app; create_app()"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", None),
        ("DATABASE_URL", "mysql://root:hunter2@db/shop"),
        ("DATABASE_READ_POOL", "hunter2"),
        ("SECRET_KEY", "hunter2"),
        ("FILES_FOLDER", None),
        ("SESSION_IDLE", "hunter2"),
        ("LOG_LEVEL", "hunter2"),
    ],
)
def test_a_missing_or_wrong_variable_stops_the_start_and_is_named(
    services: Services, name: str, value: str | None
) -> None:
    environment = {**os.environ, name: value or ""}
    if value is None:
        del environment[name]

    start = subprocess.run(CREATE_APP, env=environment, capture_output=True, text=True)

    assert start.returncode == 1
    assert f"  {name}: " in start.stderr
    assert "Traceback" not in start.stderr
    assert "hunter2" not in start.stderr
