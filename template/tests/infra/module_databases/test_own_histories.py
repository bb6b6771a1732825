# Rung's file: advancing to another stage may change it.
"""Each module's own migrations create exactly the tables of its models."""

import asyncio
import subprocess
import sys

import pytest

import app.main  # noqa: F401  # the models of each module
from app.infra.tables import Base
from dev import model_differences
from dev.module_databases import own
from dev.postgres import REPOSITORY
from dev.pytest_plugin import Databases
from dev.query_plans import FOREIGN_KEYS_WITHOUT_INDEX
from tests.infra.module_databases.test_migrations import names

pytestmark = pytest.mark.slow

COMMANDS = ("upgrade head", "check", "downgrade base", "upgrade head", "check")


def test_the_own_migrations_create_the_tables_of_the_models_and_can_be_reverted(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in own.with_history():
        with databases.created() as url:
            monkeypatch.setenv(own.variable(module), url)
            for command in COMMANDS:
                alembic(module, *command.split())
            assert alembic(module, "heads").count("(head)") == 1
            assert asyncio.run(model_differences.found(url, Base.metadata)) == []
            assert names(url, FOREIGN_KEYS_WITHOUT_INDEX) == set()


def alembic(module: str, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "app.infra.module_databases", module, *command],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{module} {' '.join(command)}: {done.stdout}{done.stderr}"
    return done.stdout
