"""An order placed, as a part of the same transaction on raw asyncpg behind FastAPI:

    uv run python ../rung/benchmarks/orders.py [--rounds 5] [--seconds 5]

Run it inside a generated repo of stage 1, 2 or 3. Needs wrk. One worker each, 32 connections, two
of 1,000 products an order, one Postgres. Each round starts new processes, because starts differ.
The other app checks the login, the stock and the request, with the same statements in 7 round
trips; it has no log line, no security headers, no limits.
Both have the same two pools: 16 connections for the login, and 8 for transactions.
"""

import argparse
import asyncio
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

import asyncpg
from comparing import Against, report
from serving import (
    Cases,
    cookie_of_somebody,
    interleave_starts,
    migrated_and_filled,
    serve,
    serve_app,
)

RAW = """
import hashlib
import os
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated
from uuid import UUID

import asyncpg
from fastapi import Cookie, FastAPI, Header, HTTPException
from pydantic import BaseModel, Field


class ItemIn(BaseModel):
    product_id: UUID
    quantity: Annotated[int, Field(ge=1, le=1000)]


class OrderIn(BaseModel):
    items: Annotated[list[ItemIn], Field(min_length=1, max_length=50)]


class ItemOut(BaseModel):
    product_id: UUID
    quantity: int
    unit_price_cents: int


class OrderOut(BaseModel):
    id: UUID
    placed_at: datetime
    cancelled_at: datetime | None
    items: list[ItemOut]
    total_cents: int


async def leave_as_it_is(connection): ...


@asynccontextmanager
async def lifespan(app):
    url = os.environ["DATABASE_URL"]
    async with (
        asyncpg.create_pool(url, max_size=16, reset=leave_as_it_is) as app.state.reads,
        asyncpg.create_pool(
            url, min_size=8, max_size=8, reset=leave_as_it_is
        ) as app.state.writes,
    ):
        yield


app = FastAPI(lifespan=lifespan)
SESSION = "SELECT user_id FROM login_sessions WHERE token_hash = $1 AND expires_at > now()"
NEW = '''
    INSERT INTO orders (account_id, idempotency_key) VALUES ($1, $2)
    ON CONFLICT DO NOTHING RETURNING id, placed_at, cancelled_at
'''
LOCK = "SELECT id, price_cents, stock FROM products WHERE id = ANY($1) ORDER BY id FOR UPDATE"
TAKE = "UPDATE products SET stock = $1 WHERE id = $2"
ITEM = "INSERT INTO order_items VALUES ($1, $2, $3, $4)"


@app.post("/orders", status_code=201)
async def place(
    wanted: OrderIn,
    idempotency_key: Annotated[str, Header(min_length=8, max_length=100, pattern=r"^[\\w-]+$")],
    session: Annotated[str, Cookie(alias="__Host-session")],
) -> OrderOut:
    quantities = {item.product_id: item.quantity for item in wanted.items}
    token_hash = hashlib.sha256(session.encode()).digest()
    user_id = await app.state.reads.fetchval(SESSION, token_hash)
    if user_id is None:
        raise HTTPException(401)
    async with app.state.writes.acquire() as connection, connection.transaction():
        order = await connection.fetchrow(NEW, user_id, idempotency_key)
        if order is None:
            raise HTTPException(409)
        products = await connection.fetch(LOCK, list(quantities))
        left = [(one["stock"] - quantities[one["id"]], one["id"]) for one in products]
        if len(left) < len(quantities) or min(left)[0] < 0:
            raise HTTPException(409)
        await connection.executemany(TAKE, left)
        bought = [(one["id"], quantities[one["id"]], one["price_cents"]) for one in products]
        await connection.executemany(ITEM, [(order["id"], *item) for item in bought])
    return OrderOut(
        **order,
        items=[
            ItemOut(product_id=product, quantity=quantity, unit_price_cents=price)
            for product, quantity, price in bought
        ],
        total_cents=sum(quantity * price for _, quantity, price in bought),
    )
"""

# A new idempotency key for each request. wrk calls `request` for the next one.
SCRIPT = """
local products = {{ {products} }}
local run, number = "{name}-" .. os.time(), 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Cookie"] = "{cookie}"
function request()
    number = number + 1
    wrk.headers["Idempotency-Key"] = run .. "-" .. number
    local first = math.random(#products - 1)
    local item = '{{"product_id": "%s", "quantity": 1}}'
    local items = item:format(products[first]) .. "," .. item:format(products[first + 1])
    return wrk.format(nil, nil, nil, '{{"items": [' .. items .. ']}}')
end
"""

OF_RAW = Against("raw asyncpg", "of raw", {"order": 0.70})
LONGEST_TAIL = 3


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    with ExitStack() as stack:
        environment = stack.enter_context(migrated_and_filled())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "raw.py").write_text(RAW)
        ids = asyncio.run(product_ids(environment["DATABASE_URL"]))
        products = ", ".join(f'"{product}"' for product in ids)

        @contextmanager
        def started() -> Iterator[Cases]:
            with (
                serve(["--app-dir", str(folder), "raw:app"], environment) as raw,
                serve_app(environment) as app,
            ):
                cookie = cookie_of_somebody(app.url)
                cases = {}
                for name, server in (("raw asyncpg", raw), ("order", app)):
                    script = folder / f"{name.split()[0]}.lua"
                    script.write_text(
                        SCRIPT.format(products=products, name=script.stem, cookie=cookie)
                    )
                    cases[name] = [f"{server.url}/orders", "--timeout", "10s", "-s", str(script)]
                yield cases

        results = interleave_starts(started, options.rounds, options.seconds)
    met = report("what", results, OF_RAW)
    met &= tail_is_short(results["order"])
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


def tail_is_short(runs: list[tuple[float, float, float]]) -> bool:
    tail = statistics.median(p99 / p50 for _, p50, p99 in runs)
    print(f"\np99 of an order: {tail:.1f} times p50 (at most {LONGEST_TAIL})")
    return tail <= LONGEST_TAIL


async def product_ids(database_url: str) -> list[UUID]:
    connection = await asyncpg.connect(database_url)
    found = await connection.fetch("SELECT id FROM products")
    await connection.close()
    return [row["id"] for row in found]


if __name__ == "__main__":
    sys.exit(main())
