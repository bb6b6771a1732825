# Rung's file: advancing to another stage may change it.
"""python -m app.infra.module_databases.move orders copy: a module's tables to their own Postgres.

Run it while the service runs. After a kill run the same step again: it looks at both databases.
"""

import argparse
import asyncio
import importlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

from alembic.config import Config
from alembic.script import ScriptDirectory
from pydantic import PostgresDsn
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy.dialects.postgresql.asyncpg import dialect

from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.direct_postgres import PostgresUrl
from app.infra.failures import ends_in_words
from app.infra.module_databases import settings
from app.infra.module_databases.__main__ import keep_to_history, tables_of
from app.infra.module_databases.move import comparing, copying, cutting, fence
from app.infra.module_databases.move.preflight import complaints
from app.infra.module_databases.move.sides import Move, Refused, Side, connected

type Step = Callable[[Move], Awaitable[str]]


class MoveSettings(BaseSettings):
    """Administrators' URLs, without a pooler. The servers also use them to reach each other."""

    model_config = SettingsConfigDict(env_prefix="MOVE_")

    from_url: PostgresUrl
    to_url: PostgresUrl


async def preflight(move: Move) -> str:
    if found := await complaints(move):
        raise Refused("\n".join(found))
    return (
        f"The databases show no obstacle to the move of {move.module}. To check the code, run:"
        f" make module-borders NAME={move.module}"
    )


async def status(move: Move) -> str:
    ended = f"{move.module}: has its own database, and there is no way back."
    if await move.old.value(cutting.GONE, move.tables):
        return ended
    if not await fence.is_closed(move.old, move):
        return (await copying.progress(move)).line()
    if await fence.is_closed(move.new, move):
        return f"{move.module}: neither database takes writes. Run cut or back again."
    if not await move.back.is_subscribed():
        return ended
    seconds = await copying.seconds_behind(move.back)
    return (
        f"{move.module}: the new database takes the writes, and the old one is"
        f" {copying.in_words(seconds)} behind."
    )


STEPS: dict[str, Step] = {
    "preflight": preflight,
    "copy": copying.copy,
    "status": status,
    "compare": comparing.compare,
    "abort": copying.abort,
    "cut": cutting.cut,
    "back": cutting.back,
    "own": cutting.own,
}
READ_ONLY = {preflight, status, comparing.compare}


def main(given: Sequence[str] | None = None) -> None:
    program = "python -m app.infra.module_databases.move"
    parser = argparse.ArgumentParser(program, description=__doc__)
    parser.add_argument("module")
    parser.add_argument(
        "step", choices=STEPS, help="in docs/runbooks/module_databases/move-a-module.md"
    )
    arguments = parser.parse_args(given)
    importlib.import_module("app.main")  # it imports the models of every module
    found = tables_of(arguments.module)
    if not found:
        sys.exit(f"No table to move: app/{arguments.module}/ has no models.")
    # asyncpg's, because others double a percent sign.
    preparer = dialect().identifier_preparer  # type: ignore[no-untyped-call]
    tables = tuple(sorted(preparer.format_table(table) for table in found))
    with ends_in_words():
        try:
            print(asyncio.run(_take(STEPS[arguments.step], arguments.module, tables)))
        except Refused as error:
            sys.exit(str(error))


async def _take(step: Step, module: str, tables: tuple[str, ...]) -> str:
    urls = environment.read(MoveSettings)
    config = Config(toml_file="pyproject.toml")
    common = frozenset(ScriptDirectory.from_config(config).get_heads())
    keep_to_history(module, config)
    own = frozenset(ScriptDirectory.from_config(config).get_heads())
    apps = environment.read(DatabaseSettings).direct_url, settings.read(module).direct_url
    async with AsyncExitStack() as stack:

        async def side(
            name: str, url: PostgresDsn, app: PostgresDsn, heads: frozenset[str]
        ) -> Side:
            connection = await stack.enter_async_context(connected(str(url)))
            return Side(name, str(url), str(app), connection, heads)

        move = Move(
            module,
            tables,
            old=await side("The old database", urls.from_url, apps[0], common),
            new=await side("The new database", urls.to_url, apps[1], own),
        )
        if step not in READ_ONLY:
            await move.refuse_another()
        return await step(move)


if __name__ == "__main__":
    main()
