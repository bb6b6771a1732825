# Rung's file: advancing to another stage may change it.
"""A sample business with pictures, for tests of commands that compare files with rows."""

from collections.abc import Callable
from hashlib import sha256

import asyncpg

from app.infra.folder import Folder
from dev.pytest_plugin import Services
from tests.infra.test_files import chunks

ROWS = "SELECT key, CASE WHEN NOT is_deleted THEN sha256 END AS sha256 FROM pictures"


class Pictures:
    """A business with files, and a row for each upload."""

    def __init__(self, services: Services, database: asyncpg.Pool) -> None:
        self.folder = Folder(services.files_folder)
        self._database = database

    async def uploaded(self, name: str, content: bytes) -> str:
        key = f"pictures/{name}"
        await self.folder.put(key, chunks(content), len(content))
        return await self.noted(key, content)

    async def noted(self, key: str, content: bytes) -> str:
        await self._database.execute(
            "INSERT INTO pictures VALUES ($1, $2)", key, sha256(content).hexdigest()
        )
        return key

    async def deleted(self, key: str) -> None:
        await self._database.execute("UPDATE pictures SET is_deleted = true WHERE key = $1", key)


def exit_of(main: Callable[[list[str]], None], arguments: list[str]) -> str | int | None:
    """Returns the command's exit code, or the message with which it exits 1."""
    try:
        main(arguments)
    except SystemExit as end:
        return end.code
    return 0
