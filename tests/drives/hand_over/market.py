"""Buyers, deliveries and sweepers at once, and what must hold when all is done."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
from app.catalog import service as catalog
from app.catalog.models import Reservation
from app.infra.failures import Unavailable
from app.infra.module_databases.sessions import module_sessions
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import delete, text

from hand_over.ways import CRASHED, POINTS, crash_at, resume

TRIES = 4  # of a client, before it leaves an order to the sweepers
AWAY = 503
AWAY_SECONDS = 0.2

# The deliveries are rows, because a server that is killed may have committed one or not.
LEDGER = "CREATE TABLE deliveries (product_id uuid NOT NULL, quantity bigint NOT NULL)"
DELIVERY = """
    WITH delivered AS (INSERT INTO deliveries VALUES (:product_id, :quantity))
    UPDATE products SET stock = stock + :quantity WHERE id = :product_id
"""
STOCK = """
    SELECT id::text, stock - (
        SELECT coalesce(sum(quantity), 0)::bigint FROM deliveries WHERE product_id = products.id
    ) AS more_than_delivered
    FROM products
"""
ORDERS = """
    SELECT id::text, idempotency_key AS key, owed IS NOT NULL AS owes,
        cancelled_at IS NOT NULL AS is_cancelled
    FROM orders
"""
ITEMS = "SELECT order_id::text, product_id::text, quantity, unit_price_cents FROM order_items"
RESERVED = """
    SELECT order_id::text, key AS product_id, value::bigint AS cents
    FROM reservations, jsonb_each(prices) WHERE put_back_at IS NULL
"""


class Market:
    """Its stock is scarce. A part of the requests are twins: they have one Idempotency-Key."""

    def __init__(
        self,
        apps: Sequence[FastAPI],
        products: Sequence[dict[str, Any]],
        *,
        crashes: float,
        sweeps_within_seconds: float,
        seed: int,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.servers_die = False
        self._apps = apps
        self._began_with = {product["id"]: product["stock"] for product in products}
        self._crashes = crashes  # the part of the requests, at each point
        self._sweeps_within_seconds = sweeps_within_seconds
        self._rng = random.Random(seed)  # noqa: S311
        self._placed: dict[str, dict[str, Any]] = {}  # acknowledged, by key
        self._to_cancel: set[str] = set()
        self._cancelled: set[str] = set()
        self._wrong: list[str] = []

    async def trade(
        self,
        buyers: Sequence[AsyncClient],
        orders: Callable[[], Iterable[int]],
        *others: Awaitable[object],
    ) -> None:
        """When all these have ended, everything that is owed is resumed."""
        over = asyncio.Event()
        sweepers = [asyncio.create_task(self._sweep(app, over)) for app in self._apps]
        await asyncio.gather(
            *(self._buy(f"buyer{n}", buyer, orders()) for n, buyer in enumerate(buyers)), *others
        )
        over.set()
        await asyncio.gather(*sweepers)
        await self._settle()

    async def violations(self) -> list[str]:
        found = list(self._wrong)
        orders = {row["id"]: row for row in await self._orders(ORDERS)}
        items: dict[str, dict[str, tuple[int, int]]] = {order_id: {} for order_id in orders}
        for order_id, product, quantity, cents in await self._orders(ITEMS):
            items[order_id][product] = quantity, cents

        for key, count in Counter(row["key"] for row in orders.values()).items():
            if count > 1:
                found.append(f"doubled: {key} has {count} orders")
        for key, order in self._placed.items():
            if items.get(order["id"]) != _items(order):
                found.append(f"lost: {key} was acknowledged as {order}")
        for row in orders.values():
            if row["owes"]:
                found.append(f"owed: {row['key']}")
            if row["is_cancelled"] and row["key"] not in self._to_cancel:
                found.append(f"cancelled: {row['key']}, and nobody asked for it")
            if not row["is_cancelled"] and row["key"] in self._cancelled:
                found.append(f"not cancelled: {row['key']}")

        sold = {one: items[one] for one, row in orders.items() if not row["is_cancelled"]}
        reserved: dict[str, dict[str, int]] = {}
        for order_id, product, cents in await self._catalog(RESERVED):
            reserved.setdefault(order_id, {})[product] = cents
        for order_id in sold.keys() | reserved.keys():
            prices = {product: cents for product, (_, cents) in sold.get(order_id, {}).items()}
            if prices != reserved.get(order_id, {}):
                found.append(f"reserved: {reserved.get(order_id)} for {order_id} with {prices}")
        for product, more in await self._catalog(STOCK):
            expected = self._began_with[product]
            bought = sum(bought[product][0] for bought in sold.values() if product in bought)
            if more + bought != expected:
                kind = "oversold" if more + bought > expected else "stock lost"
                found.append(f"{kind}: {more + bought} of {expected} at the start, {product}")
        return found

    async def _orders(self, sql: str) -> list[Any]:
        return await module_sessions("orders").database(self._apps[0]).reader().fetch(sql)

    async def _catalog(self, sql: str) -> list[Any]:
        found: list[Any] = await self._apps[0].state.database.reader().fetch(sql)
        return found

    async def _buy(self, name: str, buyer: AsyncClient, numbers: Iterable[int]) -> None:
        for number in numbers:
            key = f"{name}-order{number}"
            products = self._rng.sample(list(self._began_with), self._rng.choice((1, 1, 2)))
            wanted = {product: self._rng.choice((1, 1, 2)) for product in products}
            twins = self._rng.choice((1, 1, 2))
            await asyncio.gather(
                *(self._place(buyer, key, wanted) for _ in range(twins)), self._deliver()
            )
            if key in self._placed:
                what_next = self._rng.random()
                if what_next < 0.3:
                    await self._cancel(buyer, key)
                elif what_next < 0.4:
                    await self._place(buyer, key, wanted)

    async def _place(self, buyer: AsyncClient, key: str, wanted: dict[str, int]) -> None:
        items = [{"product_id": product, "quantity": n} for product, n in wanted.items()]
        for _ in range(TRIES):
            before = self._placed.get(key)
            answer = await self._ask(
                buyer, "/orders", json={"items": items}, headers={"Idempotency-Key": key}
            )
            if answer.status_code == 201:
                order = answer.json()
                other = self._placed.setdefault(key, order)
                if (order["id"], _items(order)) != (other["id"], _items(other)):
                    self._wrong.append(f"doubled: {key} was placed as {other} and as {order}")
                return
            if answer.status_code == 409:
                self.counts["out of stock"] += 1
                if before:
                    self._wrong.append(f"lost: {key} was placed, then refused: {answer.text}")
                return
            if self._rng.random() < 0.3:
                return

    async def _cancel(self, buyer: AsyncClient, key: str) -> None:
        self._to_cancel.add(key)
        for _ in range(TRIES):
            answer = await self._ask(buyer, f"/orders/{self._placed[key]['id']}/cancellation")
            if answer.status_code == 200:
                self._cancelled.add(key)
                return
            if self._rng.random() < 0.3:
                return

    async def _ask(self, buyer: AsyncClient, path: str, **content: Any) -> Response:
        self.counts["requests"] += 1
        self._choose_a_crash()
        answer = await buyer.post(path, **content)
        has_crashed = answer.status_code == CRASHED and crash_at.get() is None
        if has_crashed:
            self.counts["crashes"] += 1
        elif answer.status_code == AWAY and self.servers_die:
            self.counts["server away"] += 1
            await asyncio.sleep(AWAY_SECONDS)
        elif answer.status_code not in {200, 201, 409}:
            self._wrong.append(f"failed: {path}: {answer.status_code} {answer.text}")
        return answer

    async def _deliver(self) -> None:
        """A little less than is bought and not cancelled."""
        product = self._rng.choice(list(self._began_with))
        values = {"product_id": product, "quantity": self._rng.choice((0, 1, 1, 2))}
        try:
            async with self._apps[0].state.database.transaction() as write:
                await write.execute(text(DELIVERY), values)
        except Unavailable:
            if not self.servers_die:
                raise

    async def _sweep(self, app: FastAPI, over: asyncio.Event) -> None:
        while not over.is_set():
            await asyncio.sleep(self._rng.random() * self._sweeps_within_seconds)
            self._choose_a_crash()
            await self._resume(app)

    async def _settle(self) -> None:
        crash_at.set(None)
        async with asyncio.timeout(120):
            while not await self._resume(self._apps[0]) or await self._owes():
                await asyncio.sleep(AWAY_SECONDS)

    async def _resume(self, app: FastAPI) -> bool:
        try:
            await resume(app)
        except Unavailable:
            if not self.servers_die:
                raise
            return False
        return True

    async def _owes(self) -> bool:
        return any(row["owes"] for row in await self._orders(ORDERS))

    def _choose_a_crash(self) -> None:
        points = (point for point in POINTS if self._rng.random() < self._crashes)
        crash_at.set(next(points, None))

    @property
    def acknowledged(self) -> int:
        return len(self._placed)

    @property
    def cancelled(self) -> int:
        return len(self._cancelled)


def _items(order: dict[str, Any]) -> dict[str, tuple[int, int]]:
    return {
        item["product_id"]: (item["quantity"], item["unit_price_cents"]) for item in order["items"]
    }


@contextmanager
def refusals_forgotten() -> Iterator[None]:
    """The catalog as somebody might simplify it: it records no refusal."""
    reserve = catalog.reserve

    async def forgetful(write: Any, order_id: Any, quantities: Any) -> Any:
        answer = await reserve(write, order_id, quantities)
        if isinstance(answer, Exception):
            await write.execute(delete(Reservation).where(Reservation.order_id == order_id))
        return answer

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "reserve", forgetful)
        yield
