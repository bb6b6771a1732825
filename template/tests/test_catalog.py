from typing import Any, get_args
from uuid import uuid4

import pytest
from fastapi import FastAPI
from httpx import AsyncClient

from app.accounts import service
from app.accounts.schemas import AccountOut

MUG = {"name": "Enamel mug", "description": "", "price_cents": 1250, "stock": 3}


async def add(staff: AsyncClient, **changes: Any) -> dict[str, Any]:
    answer = await staff.post("/products", json={**MUG, **changes})
    assert answer.status_code == 201
    product: dict[str, Any] = answer.json()
    return product


async def test_a_product_is_shown_to_everybody(staff: AsyncClient, client: AsyncClient) -> None:
    mug = await add(staff)

    assert (await client.get(f"/products/{mug['id']}")).json() == {**MUG, "id": mug["id"]}


async def test_an_unknown_product_is_not_found(client: AsyncClient) -> None:
    answer = await client.get(f"/products/{uuid4()}")

    assert answer.status_code == 404
    assert answer.json()["title"] == "There is no such product"


async def test_pages_list_every_product_once_newest_first(
    staff: AsyncClient, client: AsyncClient
) -> None:
    added = [(await add(staff, name=f"Mug {n}"))["name"] for n in range(7)]

    seen, path = [], "/products?limit=3"
    while path:
        page = (await client.get(path)).json()
        seen.append([product["name"] for product in page["products"]])
        path = page["next"] and f"/products?limit=3&before={page['next']}"

    assert [len(names) for names in seen] == [3, 3, 1]
    assert [name for names in seen for name in names] == added[::-1]


async def test_a_new_product_does_not_shift_the_next_page(
    staff: AsyncClient, client: AsyncClient
) -> None:
    names = [(await add(staff, name=f"Mug {n}"))["name"] for n in range(4)]
    first = (await client.get("/products?limit=2")).json()
    await add(staff, name="Late mug")

    second = (await client.get(f"/products?limit=2&before={first['next']}")).json()

    assert [product["name"] for product in second["products"]] == [names[1], names[0]]
    assert second["next"] is None


@pytest.mark.parametrize("limit", [0, 101, "many"])
async def test_a_page_has_1_to_100_products(client: AsyncClient, limit: object) -> None:
    assert (await client.get(f"/products?limit={limit}")).status_code == 422


async def test_a_change_keeps_the_fields_that_it_does_not_name(staff: AsyncClient) -> None:
    mug = await add(staff)

    changed = await staff.patch(f"/products/{mug['id']}", json={"price_cents": 1300})

    assert changed.json() == {**mug, "price_cents": 1300}
    assert (await staff.get(f"/products/{mug['id']}")).json() == changed.json()


async def test_changing_an_unknown_product_is_not_found(staff: AsyncClient) -> None:
    assert (await staff.patch(f"/products/{uuid4()}", json={"stock": 1})).status_code == 404


async def test_only_staff_can_write_products(ada: AsyncClient, client: AsyncClient) -> None:
    assert (await client.post("/products", json=MUG)).status_code == 401
    assert (await ada.post("/products", json=MUG)).status_code == 403
    assert (await ada.patch(f"/products/{uuid4()}", json=MUG)).status_code == 403


@pytest.mark.parametrize(
    "wrong",
    [{"price_cents": -1}, {"stock": -1}, {"name": ""}, {"name": "n\0l"}, {"price_cents": "1,50"}],
)
async def test_a_wrong_product_is_refused(staff: AsyncClient, wrong: dict[str, Any]) -> None:
    answer = await staff.post("/products", json={**MUG, **wrong})

    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [f"body.{next(iter(wrong))}"]


async def test_a_late_read_gives_nobody_staff_rights(ada: AsyncClient, app: FastAPI) -> None:
    late = AccountOut(id=uuid4(), email="ada@example.com", is_staff=True)
    of_account = get_args(service.MaybeAccount)[1].dependency
    app.dependency_overrides[of_account] = lambda: late
    assert (await ada.get("/me")).json()["is_staff"]
    refused = await ada.post("/products", json={"name": "Lamp", "price_cents": 1})
    assert refused.status_code == 403
