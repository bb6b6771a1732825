"""On an empty Postgres, the migrations create exactly the tables of the models."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

ROOT = Path(__file__).parent.parent


@pytest.fixture
def alembic(empty_database: str) -> Config:
    return Config(toml_file=ROOT / "pyproject.toml")


def test_the_migrations_create_the_tables_of_the_models(alembic: Config) -> None:
    command.upgrade(alembic, "head")

    command.check(alembic)


def test_every_migration_can_be_reverted(alembic: Config) -> None:
    command.upgrade(alembic, "head")
    command.downgrade(alembic, "base")
    command.upgrade(alembic, "head")

    command.check(alembic)


def test_the_history_has_one_head(alembic: Config) -> None:
    assert len(ScriptDirectory.from_config(alembic).get_heads()) == 1
