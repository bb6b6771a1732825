"""Changes each table again and again while people use all routes, and counts their answers.

Runs in a generated repo of any stage: python -m schema_changes.drive
"""

import asyncio
import json
import os
import re
import sys
from collections import Counter
from contextlib import ExitStack
from typing import Any
from uuid import uuid4

import asyncpg
import httpx
from leaks.drive import Shop

SERVE = (sys.executable, "-m", "app.infra.serve")
PEOPLE = 4
ROUNDS = int(os.environ.get("ROUNDS", "3"))

# These types differ for a prepared statement, and hold the same values.
TWINS = {
    "int4": "bigint",
    "int8": "numeric",
    "text": "varchar",
    "timestamptz": "timestamptz(3)",
    "varchar": "text",
}
COLUMNS = """
    SELECT relname AS table, attname AS name, typname AS type,
        format_type(atttypid, atttypmod) AS whole
    FROM pg_attribute
    JOIN pg_class ON pg_class.oid = attrelid AND relkind = 'r'
    JOIN pg_type ON pg_type.oid = atttypid
    WHERE relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'
        AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
    ORDER BY 1, 2
"""
AN_ID = r"[0-9a-f]{8}-[0-9a-f-]{27}"


class Person:
    """Uses every route of the shop, again and again."""

    def __init__(self, url: str, statuses: Counter[str], *, logs_in_again: bool) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=300)
        self._statuses = statuses
        self._password = "a password for Ada"  # noqa: S105
        self._logs_in_again = logs_in_again
        self.is_over = False

    async def live(self) -> None:
        email = f"{uuid4()}@example.com"
        async with self._client:
            while await self._ask("POST", "/accounts", self._credentials(email)) is None:
                pass
            self._client.cookies.clear()  # a token from here on
            while not self.is_over:
                if await self._is_logged_in(email):
                    await self._visit()
                    if self._logs_in_again:
                        await self._log_out()

    def _credentials(self, email: str) -> dict[str, str]:
        return {"email": email, "password": self._password}

    async def _is_logged_in(self, email: str) -> bool:
        if "Authorization" not in self._client.headers:
            made = await self._ask("POST", "/tokens", self._credentials(email))
            if made is None:
                return False
            self._client.headers["Authorization"] = f"Bearer {made['token']}"
        return True

    async def _visit(self) -> None:
        for path in ("/me", "/me/sessions", "/orders", "/products?limit=3"):
            await self._ask("GET", path)
        found = await self._ask("GET", "/products")
        for product in found["products"][:3] if found else ():
            await self._ask("GET", f"/products/{product['id']}")
            wanted = {"items": [{"product_id": product["id"], "quantity": 1}]}
            placed = await self._ask("POST", "/orders", wanted, {"Idempotency-Key": str(uuid4())})
            if placed:
                await self._ask("POST", f"/orders/{placed['id']}/cancellation")
        upload = await self._ask("POST", "/uploads", {"content_type": "image/png", "size": 9})
        if upload:
            await self._ask("GET", f"/uploads/{upload['id']}")
            await self._ask("DELETE", f"/uploads/{upload['id']}")

    async def _log_out(self) -> None:
        new = self._password + "!"
        change = {"current_password": self._password, "new_password": new}
        if await self._ask("PUT", "/me/password", change) is not None:
            self._password = new
        await self._ask("DELETE", "/tokens/current")
        del self._client.headers["Authorization"]

    async def _ask(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Any:
        """None if the answer is no success."""
        route = f"{method} {re.sub(AN_ID, '{id}', path).partition('?')[0]}"
        try:
            answer = await self._client.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            self._statuses[f"{route} {error!r}"] += 1
            return None
        self._statuses[f"{route} {answer.status_code}"] += 1
        if not answer.is_success:
            return None
        return answer.json() if answer.content else {}


async def change_everything(url: str) -> int:
    """Each column gets another type and its own again; each table a column and an index."""
    connection = await asyncpg.connect(url)
    changes = 0
    for _ in range(ROUNDS):
        columns = await connection.fetch(COLUMNS)
        statements = [
            f"ALTER TABLE {one['table']} ALTER COLUMN {one['name']} TYPE {kind}"
            for one in columns
            if (twin := TWINS.get(one["type"]))
            for kind in (twin, one["whole"])
        ]
        for table in dict.fromkeys(one["table"] for one in columns):
            statements += [
                f"ALTER TABLE {table} ADD COLUMN arrived integer NOT NULL DEFAULT 0",
                f"CREATE INDEX CONCURRENTLY arrived_in_{table} ON {table} (arrived)",
                f"ALTER TABLE {table} DROP COLUMN arrived",
            ]
        for statement in statements:
            await until_it_gets_its_lock(connection, statement)
            await asyncio.sleep(0.02)
        changes += len(statements)
    await connection.close()
    return changes


async def until_it_gets_its_lock(connection: asyncpg.Connection, statement: str) -> None:
    """As the guide says: give up soon, because all others queue behind a change that waits."""
    await connection.execute("SET lock_timeout = '500ms'")
    steps = [statement]
    if "CONCURRENTLY" in statement:  # one that gave up has left an invalid index behind
        steps.insert(0, f"DROP INDEX IF EXISTS {statement.split()[3]}")
    for _ in range(100):
        try:
            for step in steps:
                await connection.execute(step)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(0.05)
        else:
            return
    raise AssertionError(f"never got its lock: {statement}")


async def drive(shop: Shop) -> dict[str, Any]:
    statuses: Counter[str] = Counter()
    # Only one logs in at each visit, because a password costs the time of many other requests.
    people = [Person(shop.url, statuses, logs_in_again=not n) for n in range(PEOPLE)]
    lives = [asyncio.create_task(one.live()) for one in people]
    await asyncio.sleep(1)  # until statements are prepared
    changes = await change_everything(shop.database_url)
    for one in people:
        one.is_over = True
    await asyncio.gather(*lives)
    return {"changes": changes, "statuses": statuses}


def main() -> None:
    with ExitStack() as stack:
        shop = Shop(stack, SERVE)
        shop.run("-m", "app.seed")
        print(json.dumps(asyncio.run(drive(shop))))


if __name__ == "__main__":
    main()
