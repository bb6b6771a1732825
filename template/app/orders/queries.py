from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.infra.database import ReadSession
from app.infra.reads import Query
from app.orders.models import Order, OrderItem
from app.orders.schemas import OrderItemOut, OrderOut, OrderPage


@dataclass(frozen=True, slots=True)
class _OrderRow:
    id: UUID
    placed_at: datetime
    cancelled_at: datetime | None


@dataclass(frozen=True, slots=True)
class _ItemRow:
    order_id: UUID
    product_id: UUID
    quantity: int
    unit_price_cents: int


ORDERS_OF_ACCOUNT = Query(
    select(Order.id, Order.placed_at, Order.cancelled_at)
    .where(Order.account_id == bindparam("account_id"), Order.id < bindparam("before"))
    .order_by(Order.id.desc())
    .limit(bindparam("limit")),
    _OrderRow,
)

ITEMS_OF_ORDERS = Query(
    select(OrderItem.order_id, OrderItem.product_id, OrderItem.quantity, OrderItem.unit_price_cents)
    .where(OrderItem.order_id == any_(bindparam("order_ids", type_=ARRAY(Uuid))))
    .order_by(OrderItem.product_id),
    _ItemRow,
)


async def order_page(read: ReadSession, account_id: UUID, before: UUID, size: int) -> OrderPage:
    rows = await read.all(ORDERS_OF_ACCOUNT, account_id=account_id, before=before, limit=size + 1)
    has_more = len(rows) > size
    rows = rows[:size]
    items = await _items_by_order(read, [row.id for row in rows])
    orders = [
        OrderOut(
            id=row.id,
            placed_at=row.placed_at,
            cancelled_at=row.cancelled_at,
            items=items[row.id],
        )
        for row in rows
    ]
    return OrderPage(orders=orders, next=rows[-1].id if has_more else None)


async def _items_by_order(
    read: ReadSession, order_ids: list[UUID]
) -> dict[UUID, list[OrderItemOut]]:
    items = defaultdict(list)
    if order_ids:
        for row in await read.all(ITEMS_OF_ORDERS, order_ids=order_ids):
            item = OrderItemOut(
                product_id=row.product_id,
                quantity=row.quantity,
                unit_price_cents=row.unit_price_cents,
            )
            items[row.order_id].append(item)
    return items
