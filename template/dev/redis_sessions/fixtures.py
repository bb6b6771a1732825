# Rung's file: advancing to another stage may change it.
"""Fixtures: a Redis of login sessions for each test."""

from collections.abc import Iterator

import pytest

from dev.cache import valkey
from dev.pytest_plugin import Services


@pytest.fixture(scope="session")
def session_server() -> Iterator[valkey.Valkey]:
    with valkey.running("sessions") as server:
        yield server


@pytest.fixture
def services(
    services: Services, session_server: valkey.Valkey, monkeypatch: pytest.MonkeyPatch
) -> Services:
    """Login sessions in a Redis that tests share, because tokens and users' ids are random."""
    monkeypatch.setenv("SESSION_STORE", "redis")
    monkeypatch.setenv("SESSION_REDIS_URL", session_server.url)
    monkeypatch.setenv("SESSION_REDIS_SECONDS", "5")  # the machine may be busy
    return services
