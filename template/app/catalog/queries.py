from uuid import UUID

from sqlalchemy import bindparam, select

from app.catalog.models import Product
from app.catalog.schemas import ProductOut, ProductPage
from app.infra.database import ReadSession
from app.infra.freshness import max_stale
from app.infra.reads import Query

_COLUMNS = (
    Product.id,
    Product.name,
    Product.description,
    Product.price_cents,
    Product.stock,
)

PRODUCT_BY_ID = Query(
    select(*_COLUMNS).where(Product.id == bindparam("product_id")),
    ProductOut,
)

PRODUCTS_BEFORE = Query(
    select(*_COLUMNS)
    .where(Product.id < bindparam("before"))
    .order_by(Product.id.desc())
    .limit(bindparam("limit")),
    ProductOut,
)


@max_stale(minutes=1)
async def product_by_id(read: ReadSession, product_id: UUID) -> ProductOut | None:
    return await read.first(PRODUCT_BY_ID, product_id=product_id)


@max_stale(minutes=1)
async def product_page(read: ReadSession, before: UUID, size: int) -> ProductPage:
    """Newest first."""
    products = await read.all(PRODUCTS_BEFORE, before=before, limit=size + 1)
    has_more = len(products) > size
    products = products[:size]
    return ProductPage(products=products, next=products[-1].id if has_more else None)
