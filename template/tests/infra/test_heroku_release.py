# Rung's file: advancing to another stage may change it.
"""deploy/heroku-release.sh: what Heroku runs before a release."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_release_brings_an_empty_database_to_the_last_migration(
    empty_database: str, tmp_path: Path
) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["/bin/sh", "deploy/heroku-release.sh"],
        cwd=ROOT,
        env={"PATH": path, "DATABASE_URL": empty_database, "FILES_FOLDER": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    command.check(Config(toml_file=ROOT / "pyproject.toml"))
