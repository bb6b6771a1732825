"""The app as in production, except that each statement with values fails the first time."""

import os
from pathlib import Path
from typing import Any

import asyncpg
from app.infra import serve
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_connection

TRIED = Path(os.environ["TRIED"])

tried: set[str] = set()
prepare = asyncpg.Connection._get_statement


async def prepare_a_failing_one(
    self: asyncpg.Connection, query: str, *args: Any, **how: Any
) -> Any:
    if "$1" in query and query not in tried:
        tried.add(query)
        with TRIED.open("a", encoding="utf-8") as file:
            file.write(" ".join(query.split()) + "\n")
        query = f"WITH asked AS ({query}) SELECT 1 / 0 FROM asked"  # noqa: S608  # the app's own
    return await prepare(self, query, *args, **how)


asyncpg.Connection._get_statement = prepare_a_failing_one
# Otherwise SQLAlchemy would keep the failing one.
AsyncAdapt_asyncpg_connection._prepared_statement_cache = property(
    lambda _: None, lambda _, cache: None
)

if __name__ == "__main__":
    serve.main()
