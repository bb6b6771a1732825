from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header

from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.infra.sessions import CurrentUser
from app.orders import queries, service
from app.orders.schemas import OrderIn, OrderOut, OrderPage
from app.paging import NEWEST, Before, Limit

router = APIRouter(prefix="/orders", tags=["orders"])


@router.post(
    "", status_code=201, summary="Place an order", responses=problems(400, 401, 403, 409, 413)
)
async def place_order(
    write: WriteSession,
    user: CurrentUser,
    wanted: OrderIn,
    idempotency_key: Annotated[
        str,
        Header(
            min_length=8,
            max_length=100,
            pattern=r"^[\w-]+$",
            description="A new one for each order. A retry with the same key orders nothing again.",
        ),
    ],
) -> OrderOut:
    return await service.place_order(write, user.id, idempotency_key, wanted)


@router.get("", summary="List my orders, newest first", responses=problems(401))
async def list_orders(
    read: ReadSession,
    user: CurrentUser,
    before: Before = NEWEST,
    limit: Limit = 20,
) -> OrderPage:
    return await queries.order_page(read, user.id, before, limit)


@router.post(
    "/{order_id}/cancellation", summary="Cancel an order", responses=problems(401, 403, 404)
)
async def cancel_order(write: WriteSession, user: CurrentUser, order_id: UUID) -> OrderOut:
    return await service.cancel_order(write, user.id, order_id)
