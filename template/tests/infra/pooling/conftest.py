# Rung's file: advancing to another stage may change it.
"""Tests with a pooler are skipped on a laptop without PgBouncer."""

import os

import pytest

from dev.pooling import pgbouncer
from dev.server import ServerError


@pytest.fixture
def installed() -> None:
    try:
        pgbouncer.program()
    except ServerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
