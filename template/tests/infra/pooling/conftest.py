# Rung's file: advancing to another stage may change it.
"""Tests with a pooler are skipped on a laptop without PgBouncer."""

import os

import pytest

from dev.pooling import pgbouncer


@pytest.fixture
def installed() -> None:
    try:
        pgbouncer.program()
    except pgbouncer.PgBouncerError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
