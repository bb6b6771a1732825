from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from app.requests import RequestBody

# Postgres cannot store the character NUL.
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
Description = Annotated[str, StringConstraints(max_length=5000, pattern=r"^[^\x00]*$")]
Cents = Annotated[int, Field(ge=0, le=100_000_000)]
Stock = Annotated[int, Field(ge=0, le=1_000_000)]


class ProductIn(RequestBody):
    name: Name
    description: Description = ""
    price_cents: Cents
    stock: Stock = 0


class ProductChange(RequestBody):
    """A field that is missing or null does not change."""

    name: Name | None = None
    description: Description | None = None
    price_cents: Cents | None = None
    stock: Stock | None = None


class ProductOut(BaseModel):
    id: UUID
    name: str
    description: str
    price_cents: int
    stock: int


class ProductPage(BaseModel):
    products: list[ProductOut]
    next: UUID | None = Field(description="`before` for the next page. Null on the last page.")
