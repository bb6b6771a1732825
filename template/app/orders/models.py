from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.infra.tables import Base


class Order(Base):
    """Holds the ids of accounts and products without foreign keys. Modules meet only through their
    services, so that a module's tables can move to another database later."""

    __tablename__ = "orders"
    __table_args__ = (
        UniqueConstraint("account_id", "idempotency_key"),
        Index("ix_orders_account_id_id", "account_id", "id"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=func.uuidv7())
    account_id: Mapped[UUID]
    idempotency_key: Mapped[str]
    placed_at: Mapped[datetime] = mapped_column(server_default=func.now())
    cancelled_at: Mapped[datetime | None]

    items: Mapped[list["OrderItem"]] = relationship(lazy="raise", order_by="OrderItem.product_id")


class OrderItem(Base):
    __tablename__ = "order_items"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    order_id: Mapped[UUID] = mapped_column(ForeignKey("orders.id"), primary_key=True)
    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    quantity: Mapped[int]
    unit_price_cents: Mapped[int]  # at the time of the order
