from uuid import UUID

from fastapi import APIRouter

from app.accounts.service import Staff
from app.catalog import queries, service
from app.catalog.schemas import ProductChange, ProductIn, ProductOut, ProductPage
from app.errors import problems
from app.infra.database import ReadSession, WriteSession
from app.paging import NEWEST, Before, Limit

router = APIRouter(prefix="/products", tags=["catalog"])


@router.get("", summary="List products, newest first")
async def list_products(
    read: ReadSession,
    before: Before = NEWEST,
    limit: Limit = 20,
) -> ProductPage:
    return await queries.product_page(read, before, limit)


@router.get("/{product_id}", summary="Show a product", responses=problems(404))
async def show_product(read: ReadSession, product_id: UUID) -> ProductOut:
    product = await queries.product_by_id(read, product_id)
    if product is None:
        raise service.NoSuchProduct
    return product


@router.post(
    "", status_code=201, summary="Add a product (staff)", responses=problems(400, 401, 403, 413)
)
async def create_product(write: WriteSession, staff: Staff, new: ProductIn) -> ProductOut:
    product = await service.create_product(write, new)
    return ProductOut.model_validate(product, from_attributes=True)


@router.patch(
    "/{product_id}",
    summary="Change a product (staff)",
    responses=problems(400, 401, 403, 404, 413),
)
async def change_product(
    write: WriteSession, staff: Staff, product_id: UUID, change: ProductChange
) -> ProductOut:
    product = await service.change_product(write, product_id, change)
    return ProductOut.model_validate(product, from_attributes=True)
