# Rung's file: advancing to another stage may change it.
"""The app's demands on a pooler, line by line as docs/guide/pooling/pooling.md lists them."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import asyncpg
import pytest
from sqlalchemy import text

from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from dev.pooling import pgbouncer
from dev.pytest_plugin import Services
from tests.infra.conftest import execute_sql
from tests.infra.test_database import proxy

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "pooling" / "pooling.md"
SESSION_LOCK = r"pg_(try_)?advisory_(un)?lock"


class Sent(NamedTuple):
    """One message of the app. A query without a name has the name ""."""

    sort: str
    name: str
    said: str


def none_says(pattern: str) -> Callable[[list[Sent]], bool]:
    return lambda sent: not [one for one in sent if re.search(pattern, one.said, re.IGNORECASE)]


def no_message_has_a_name(sent: list[Sent]) -> bool:
    return "P" in {one.sort for one in sent} and {one.name for one in sent} == {""}


def no_connection_brings_settings(sent: list[Sent]) -> bool:
    began = [set(one.said.split("\0")[::2]) for one in sent if one.sort == "startup"]
    return bool(began) and set().union(*began) <= {"user", "database", "client_encoding"}


def each_connection_looks_at_its_settings(sent: list[Sent]) -> bool:
    began = [one for one in sent if one.sort == "startup"]
    looked = [one for one in sent if one.said == "SHOW transaction_read_only"]
    return len(looked) >= len(began) > 0


REQUIREMENTS: dict[str, Callable[[list[Sent]], bool]] = {
    "names no prepared statement": no_message_has_a_name,
    "sends no settings when it connects": no_connection_brings_settings,
    "looks at the settings it was given": each_connection_looks_at_its_settings,
    "changes no setting of a session": none_says(r"^\s*SET\s+(?!LOCAL|TRANSACTION)|set_config"),
    "clears no session": none_says(r"^\s*(RESET|DISCARD|DEALLOCATE|CLOSE|UNLISTEN)|reset all"),
    "does not listen": none_says(r"^\s*LISTEN"),
    "takes no lock of a session": none_says(SESSION_LOCK),
    "makes no temporary table, sequence or cursor": none_says(r"\bTEMP|^\s*DECLARE|setval"),
}


@asynccontextmanager
async def recorded(services: Services) -> AsyncGenerator[tuple[DatabaseSettings, list[bytes]]]:
    """Settings that lead to PgBouncer, and all that is sent there."""
    with pgbouncer.running(services.database_url) as bouncer:
        async with proxy(replace(services, database_url=bouncer.url)) as line:
            port = urlsplit(bouncer.url).port
            url, read_url = (
                one.replace(f":{port}/", f":{line.port}/")
                for one in (bouncer.url, bouncer.read_url)
            )
            direct = services.database_url
            given = {"pooled": True, "url": url, "read_url": read_url, "direct_url": direct}
            yield DatabaseSettings.model_validate(given), line.sent


def messages(part: bytes) -> Iterator[Sent]:
    while part:
        if part[0]:
            sort, size = chr(part[0]), 1 + int.from_bytes(part[1:5])
            body, part = part[5:size], part[size:]
            name, _, rest = body.decode(errors="replace").partition("\0")
            if sort == "Q":
                yield Sent(sort, "", name)
            elif sort in "PDC":  # Parse. Describe and Close begin with S or P.
                yield Sent(sort, name if sort == "P" else name[1:], rest.partition("\0")[0])
            elif sort == "B":
                yield Sent(sort, rest.partition("\0")[0], "")
        else:
            size = int.from_bytes(part[:4])
            body, part = part[4:size], part[size:]
            if body[:4] == (3 << 16).to_bytes(4):
                yield Sent("startup", "", body[4:].decode().strip("\0"))


@pytest.mark.usefixtures("installed")
async def test_the_app_needs_from_a_pooler_only_what_the_page_lists(services: Services) -> None:
    size = "CREATE TYPE size AS ENUM ('small', 'large')"
    await execute_sql(services.database_url, f"{size}; CREATE TABLE notes (id int, size size)")
    async with recorded(services) as (settings, parts), Database(settings) as database:
        await database.check()
        for size in ("small", "large"):
            async with database.transaction() as write:
                await write.execute(
                    text("INSERT INTO notes VALUES (1, CAST(:a AS size))"), {"a": size}
                )
        # asyncpg looks an array and an enum up before it sends the first.
        rows = await database.reader().fetch(
            "SELECT $1::jsonb AS a, size FROM notes WHERE id = ANY ($2::int[])", {"c": 1}, [1]
        )
        assert [tuple(row) for row in rows] == [({"c": 1}, "small"), ({"c": 1}, "large")]
        with pytest.raises(asyncpg.DivisionByZeroError):
            await database.reader().fetch("SELECT $1::int / 0", 1)

    sent = [one for part in parts for one in messages(part)]
    assert [one for one in sent if one.said.startswith("INSERT INTO notes")]
    assert [one for one in sent if "typeinfo_tree" in one.said]
    assert [what for what, holds in REQUIREMENTS.items() if not holds(sent)] == []


def test_the_page_lists_what_is_tested() -> None:
    table = PAGE.read_text(encoding="utf-8").partition("| the app … |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| ([a-z][^|]+) \|", table, re.MULTILINE)

    assert listed == list(REQUIREMENTS)
