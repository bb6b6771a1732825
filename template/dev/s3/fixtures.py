# Rung's file: advancing to another stage may change it.
"""Fixtures: a bucket for each test."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from dev.pytest_plugin import RUN, Services
from dev.s3 import rclone


@pytest.fixture(scope="session")
def s3_server() -> Iterator[rclone.S3]:
    with rclone.running(f"rung-test-s3-{RUN}") as server:
        yield server


@pytest.fixture
def services(services: Services, s3_server: rclone.S3, monkeypatch: pytest.MonkeyPatch) -> Services:
    for name, value in s3_server.variables(f"test-{uuid4().hex}").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FILES_S3_SECONDS", "20")  # the machine may be busy
    return services
