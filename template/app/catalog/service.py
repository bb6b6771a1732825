from collections.abc import Mapping
from typing import NamedTuple
from uuid import UUID

from sqlalchemy import bindparam, select, update

from app.catalog.models import Product
from app.catalog.schemas import ProductChange, ProductIn
from app.errors import Conflict, NotFound, Unprocessable
from app.infra.database import WriteSession
from app.infra.reads import Query, in_transaction


class _Locked(NamedTuple):
    id: UUID
    name: str
    price_cents: int
    stock: int


# Always locked in the order of ids, so two orders for the same things cannot deadlock.
LOCKED_PRODUCTS = Query(
    select(Product.id, Product.name, Product.price_cents, Product.stock)
    .where(Product.id.in_(bindparam("ids")))
    .order_by(Product.id)
    .with_for_update(),
    _Locked,
)
TAKE_FROM_STOCK = Query(
    update(Product)
    .where(Product.id == bindparam("product_id"))
    .values(stock=Product.stock - bindparam("taken"))
)


class NoSuchProduct(NotFound):
    """There is no such product"""


class UnknownProduct(Unprocessable):
    """An ordered product does not exist"""


class OutOfStock(Conflict):
    """There is not enough in stock"""


async def create_product(write: WriteSession, new: ProductIn) -> Product:
    product = Product(**new.model_dump())
    write.add(product)
    await write.flush()
    return product


async def change_product(write: WriteSession, product_id: UUID, change: ProductChange) -> Product:
    """Raises NoSuchProduct."""
    product = await write.get(Product, product_id, with_for_update=True)
    if product is None:
        raise NoSuchProduct
    for field, value in change.model_dump(exclude_unset=True, exclude_none=True).items():
        setattr(product, field, value)
    return product


async def take_from_stock(write: WriteSession, quantities: Mapping[UUID, int]) -> dict[UUID, int]:
    """All or nothing. Returns the products' prices in cents. Raises UnknownProduct, OutOfStock."""
    transaction = in_transaction(write)
    locked = await transaction.all(LOCKED_PRODUCTS, ids=list(quantities))
    products = {product.id: product for product in locked}
    for product_id, quantity in quantities.items():
        product = products.get(product_id)
        if product is None:
            raise UnknownProduct(f"There is no product {product_id}.")
        if product.stock < quantity:
            raise OutOfStock(f"{product.stock} of {product.name} left.")
    taken = [{"product_id": product_id, "taken": taken} for product_id, taken in quantities.items()]
    await transaction.executemany(TAKE_FROM_STOCK, taken)
    return {product.id: product.price_cents for product in products.values()}


async def put_back_in_stock(write: WriteSession, quantities: Mapping[UUID, int]) -> None:
    for product_id, quantity in sorted(quantities.items()):
        returned = update(Product).where(Product.id == product_id)
        await write.execute(returned.values(stock=Product.stock + quantity))
