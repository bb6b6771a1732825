# Rung's file: advancing to another stage may change it.
"""A bucket, a server that a test may end, and a business with pictures."""

from collections.abc import AsyncGenerator, Iterator

import asyncpg
import pytest

from app.infra import environment
from app.infra.s3.bucket import Bucket
from app.infra.s3.settings import FileSettings, bucket_of
from dev.pytest_plugin import Services
from dev.s3 import rclone
from tests.infra.s3.pictures import Pictures


@pytest.fixture
async def bucket(services: Services) -> AsyncGenerator[Bucket]:
    async with bucket_of(environment.read(FileSettings)) as bucket:
        yield bucket


@pytest.fixture
def own_server(services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[rclone.S3]:
    """An S3 server that a test may hang and kill."""
    with rclone.running() as server:
        for name, value in server.variables().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
async def pictures(services: Services) -> AsyncGenerator[Pictures]:
    async with asyncpg.create_pool(services.database_url, min_size=1, max_size=3) as database:
        await database.execute(
            "CREATE TABLE pictures (key text, sha256 text, is_deleted bool NOT NULL DEFAULT false)"
        )
        yield Pictures(services, database)
