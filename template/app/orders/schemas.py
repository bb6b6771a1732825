from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, computed_field

from app.requests import Id, RequestBody

MAX_ITEMS = 50


class OrderItemIn(RequestBody):
    product_id: Id
    quantity: Annotated[int, Field(ge=1, le=1000)]


class OrderIn(RequestBody):
    items: Annotated[list[OrderItemIn], Field(min_length=1, max_length=MAX_ITEMS)]

    def quantities(self) -> dict[UUID, int]:
        """Adds up the quantities of a product that is listed twice."""
        quantities: dict[UUID, int] = {}
        for item in self.items:
            quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
        return quantities


class OrderItemOut(BaseModel):
    product_id: UUID
    quantity: int
    unit_price_cents: int


class OrderOut(BaseModel):
    id: UUID
    placed_at: datetime
    cancelled_at: datetime | None
    items: list[OrderItemOut]

    # Without the format, clients generated for Go, Java, Kotlin and C# read only 32 bits.
    @computed_field(json_schema_extra={"format": "int64"})
    def total_cents(self) -> int:
        return sum(item.quantity * item.unit_price_cents for item in self.items)


class OrderPage(BaseModel):
    orders: list[OrderOut]
    next: UUID | None = Field(description="`before` for the next page. Null on the last page.")
