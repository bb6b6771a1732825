import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient, Response
from sqlalchemy import Select, select

from app.catalog.models import Product
from app.infra.database import Database
from dev.statements import Statements
from tests.conftest import WAITING_FOR_A_LOCK, LogIn
from tests.test_catalog import add


async def order(client: AsyncClient, quantities: dict[str, int], key: str = "") -> Response:
    return await client.post(
        "/orders",
        json={"items": [{"product_id": one, "quantity": n} for one, n in quantities.items()]},
        headers={"Idempotency-Key": key or str(uuid4())},
    )


async def stock(client: AsyncClient, product: dict[str, Any]) -> int:
    left: int = (await client.get(f"/products/{product['id']}")).json()["stock"]
    return left


@pytest.fixture
async def mug(staff: AsyncClient) -> dict[str, Any]:
    return await add(staff, stock=3)


@pytest.fixture
async def lamp(staff: AsyncClient) -> dict[str, Any]:
    return await add(staff, name="Walnut desk lamp", price_cents=7900, stock=1)


async def test_an_order_takes_from_stock_and_keeps_its_prices(
    ada: AsyncClient, staff: AsyncClient, mug: dict[str, Any], lamp: dict[str, Any]
) -> None:
    placed = await order(ada, {mug["id"]: 2, lamp["id"]: 1})

    assert placed.status_code == 201
    assert placed.json()["total_cents"] == 2 * 1250 + 7900
    assert (await stock(ada, mug), await stock(ada, lamp)) == (1, 0)
    await staff.patch(f"/products/{mug['id']}", json={"price_cents": 9999})
    assert (await ada.get("/orders")).json() == {"orders": [placed.json()], "next": None}


@pytest.mark.usefixtures("open_connections")
async def test_two_buyers_one_last_item_exactly_one_wins(
    ada: AsyncClient, grace: AsyncClient, lamp: dict[str, Any]
) -> None:
    answers = await asyncio.gather(order(ada, {lamp["id"]: 1}), order(grace, {lamp["id"]: 1}))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert await stock(ada, lamp) == 0


@pytest.mark.usefixtures("open_connections")
async def test_many_buyers_get_exactly_what_is_in_stock(log_in: LogIn, mug: dict[str, Any]) -> None:
    buyers = [await log_in(f"buyer{n}") for n in range(6)]

    answers = await asyncio.gather(*(order(buyer, {mug["id"]: 1}) for buyer in buyers))

    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 3


async def test_an_order_is_placed_completely_or_not(
    ada: AsyncClient, mug: dict[str, Any], lamp: dict[str, Any]
) -> None:
    refused = await order(ada, {mug["id"]: 1, lamp["id"]: 2})

    assert refused.status_code == 409
    assert refused.json()["detail"] == "1 of Walnut desk lamp left."
    assert await stock(ada, mug) == 3
    assert (await ada.get("/orders")).json()["orders"] == []


@pytest.mark.usefixtures("open_connections")
async def test_orders_that_list_the_same_products_in_reverse_do_not_deadlock(
    ada: AsyncClient, grace: AsyncClient, staff: AsyncClient
) -> None:
    first, second = (await add(staff, stock=1000))["id"], (await add(staff, stock=1000))["id"]

    answers = await asyncio.gather(
        *(order(ada, {first: 1, second: 1}) for _ in range(10)),
        *(order(grace, {second: 1, first: 1}) for _ in range(10)),
    )

    assert {answer.status_code for answer in answers} == {201}


async def test_stock_is_locked_in_the_order_of_ids(
    ada: AsyncClient, staff: AsyncClient, database: Database
) -> None:
    first, second = sorted([(await add(staff))["id"], (await add(staff))["id"]])

    async with database.transaction() as holder:
        await holder.execute(lock(second))
        placing = asyncio.create_task(order(ada, {second: 1, first: 1}))
        while not await database.reader().fetch(WAITING_FOR_A_LOCK):  # noqa: ASYNC110  # Postgres knows
            await asyncio.sleep(0.01)
        async with database.transaction() as other:
            assert (await other.scalars(lock(first, skip_locked=True))).all() == []

    assert (await placing).status_code == 201


def lock(product_id: str, skip_locked: bool = False) -> Select[Product]:
    one = select(Product).where(Product.id == UUID(product_id))
    return one.with_for_update(skip_locked=skip_locked)


@pytest.mark.usefixtures("open_connections")
async def test_a_retry_with_the_same_key_orders_nothing_twice(
    ada: AsyncClient, mug: dict[str, Any]
) -> None:
    answers = await asyncio.gather(*(order(ada, {mug["id"]: 1}, "one-and-only") for _ in range(5)))

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert await stock(ada, mug) == 2


async def test_a_key_is_valid_for_one_order(ada: AsyncClient, mug: dict[str, Any]) -> None:
    await order(ada, {mug["id"]: 1}, "one-and-only")

    reused = await order(ada, {mug["id"]: 2}, "one-and-only")

    assert reused.status_code == 409
    assert reused.json()["title"] == "This idempotency key belongs to another order"


async def test_two_buyers_may_use_the_same_key(
    ada: AsyncClient, grace: AsyncClient, mug: dict[str, Any]
) -> None:
    placed = [await order(buyer, {mug["id"]: 1}, "one-and-only") for buyer in (ada, grace)]
    again = [await order(buyer, {mug["id"]: 1}, "one-and-only") for buyer in (ada, grace)]

    assert [answer.json() for answer in again] == [answer.json() for answer in placed]
    assert placed[0].json()["id"] != placed[1].json()["id"]
    assert await stock(ada, mug) == 1


async def test_a_refused_order_does_not_use_up_its_key(
    ada: AsyncClient, staff: AsyncClient, lamp: dict[str, Any]
) -> None:
    assert (await order(ada, {lamp["id"]: 2}, "try-again")).status_code == 409
    await staff.patch(f"/products/{lamp['id']}", json={"stock": 2})

    assert (await order(ada, {lamp["id"]: 2}, "try-again")).status_code == 201


async def test_a_product_listed_twice_is_one_item(ada: AsyncClient, mug: dict[str, Any]) -> None:
    placed = await ada.post(
        "/orders",
        json={"items": [{"product_id": mug["id"], "quantity": 1}] * 2},
        headers={"Idempotency-Key": "twice-listed"},
    )

    assert [item["quantity"] for item in placed.json()["items"]] == [2]


async def test_an_unknown_product_cannot_be_ordered(ada: AsyncClient) -> None:
    assert (await order(ada, {str(uuid4()): 1})).status_code == 422


async def test_an_order_needs_a_key_and_a_login(ada: AsyncClient, client: AsyncClient) -> None:
    body = {"items": [{"product_id": str(uuid4()), "quantity": 1}]}

    assert (await ada.post("/orders", json=body)).status_code == 422
    assert (await order(client, {str(uuid4()): 1})).status_code == 401


@pytest.mark.usefixtures("open_connections")
async def test_cancelling_puts_the_stock_back_once(ada: AsyncClient, mug: dict[str, Any]) -> None:
    placed = (await order(ada, {mug["id"]: 2})).json()
    path = f"/orders/{placed['id']}/cancellation"

    answers = await asyncio.gather(*(ada.post(path) for _ in range(4)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["cancelled_at"] for answer in answers}) == 1
    assert await stock(ada, mug) == 3
    assert (await ada.get("/orders")).json()["orders"][0]["cancelled_at"] is not None


async def test_nobody_else_sees_or_cancels_an_order(
    ada: AsyncClient, grace: AsyncClient, mug: dict[str, Any]
) -> None:
    placed = (await order(ada, {mug["id"]: 1})).json()

    assert (await grace.get("/orders")).json()["orders"] == []
    assert (await grace.post(f"/orders/{placed['id']}/cancellation")).status_code == 404
    assert await stock(ada, mug) == 2


async def test_orders_come_in_pages(ada: AsyncClient, mug: dict[str, Any]) -> None:
    placed = [(await order(ada, {mug["id"]: 1})).json()["id"] for _ in range(3)]

    first = (await ada.get("/orders?limit=2")).json()
    second = (await ada.get(f"/orders?limit=2&before={first['next']}")).json()

    assert [one["id"] for one in first["orders"] + second["orders"]] == placed[::-1]
    assert second["next"] is None


async def test_a_page_of_orders_takes_as_many_statements_as_one_order(
    ada: AsyncClient, mug: dict[str, Any], lamp: dict[str, Any], statements: Statements
) -> None:
    """Otherwise each order needs one more (N+1). Write such a test for each of your lists."""
    counts = []
    for quantities in ({mug["id"]: 1}, {mug["id"]: 1, lamp["id"]: 1}, {mug["id"]: 1}):
        (await order(ada, quantities)).raise_for_status()
        with statements.counted() as counted:
            (await ada.get("/orders")).raise_for_status()
        counts.append(len(counted))

    assert counts == [counts[0]] * 3


@pytest.mark.parametrize("quantity", [True, "1", 1.0, 1.5, None])
async def test_a_quantity_is_a_whole_number(
    ada: AsyncClient, mug: dict[str, Any], quantity: object
) -> None:
    answer = await ada.post(
        "/orders",
        json={"items": [{"product_id": mug["id"], "quantity": quantity}]},
        headers={"Idempotency-Key": str(uuid4())},
    )

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == ["body.items.0.quantity"]


async def test_a_total_is_described_as_a_number_of_64_bits(app: FastAPI) -> None:
    order = app.openapi()["components"]["schemas"]["OrderOut"]["properties"]

    assert order["total_cents"]["format"] == "int64"
