# Rung's file: advancing to another stage may change it.
"""Transactions whose commit notes a WAL position."""

from fastapi import FastAPI
from sqlalchemy import text

from app.infra.database import Database
from app.infra.own_writes.commits import note_positions


async def test_a_block_that_rolls_back_may_end_as_usual(bare: FastAPI) -> None:
    note_positions(bare)
    database: Database = bare.state.database
    async with bare.router.lifespan_context(bare):
        async with database.transaction() as write:
            await write.execute(text("SELECT 1"))
            await write.rollback()
        async with database.transaction() as write:
            await write.execute(text("SELECT 1"))
            await write.rollback()
            assert await write.scalar(text("SELECT 2")) == 2
