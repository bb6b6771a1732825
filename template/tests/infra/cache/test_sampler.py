# Rung's file: advancing to another stage may change it.
"""The position that a read shows."""

import asyncpg

from app.infra.cache.loads import Sampler
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.own_writes.log_position import WRITTEN_UP_TO, reachable
from dev.pytest_plugin import Services


async def test_a_sampled_position_excludes_a_transaction_that_may_be_committing(
    services: Services,
) -> None:
    """The WAL has the commit before any reader can see it."""
    sampler = Sampler()
    writer = await asyncpg.connect(services.database_url)
    await writer.execute("CREATE TABLE notes (id int)")
    settings = DatabaseSettings.model_validate({"url": services.database_url})
    async with Database(settings) as database, writer.transaction():
        await writer.execute("INSERT INTO notes VALUES (1)")
        await sampler.sample(database.reader())
        sampled = await sampler.sample(database.reader())

        end = reachable(*await writer.fetchrow(WRITTEN_UP_TO))
    await writer.close()

    assert sampled
    assert sampled <= end
