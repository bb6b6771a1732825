"""Fills an empty database with a small shop: `python -m app.seed`."""

import asyncio
import secrets

from pydantic import SecretStr
from sqlalchemy import exists, select

from app.accounts import service as accounts
from app.catalog import service as catalog
from app.catalog.models import Product
from app.catalog.schemas import ProductIn
from app.infra import environment
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import ends_in_words

STAFF_EMAIL = "staff@example.com"

PRODUCTS = [
    ("Walnut desk lamp", "Turned by hand; takes an E14 bulb.", 7900, 14),
    ("Linen apron", "Washed linen, one pocket, fits everybody.", 4200, 60),
    ("Cast-iron pan", "26 cm, seasoned, for every stove.", 5900, 25),
    ("Beeswax candles", "Six of them, eight hours each.", 1800, 120),
    ("Notebook, dotted", "A5, 160 pages that lie flat.", 1450, 300),
    ("Bread knife", "Serrated, 22 cm, beech handle.", 3600, 40),
    ("Wool blanket", "130 by 180 cm, from one mill.", 11900, 9),
    ("Enamel mug", "Keeps coffee and survives the camp fire.", 1250, 200),
    ("Oak chopping board", "End grain, oiled, 40 by 30 cm.", 6400, 18),
    ("Last season's tray", "Sold out; kept for those who have it.", 2900, 0),
]


async def main() -> None:
    async with (
        Database(environment.read(DatabaseSettings)) as database,
        database.transaction() as write,
    ):
        if await write.scalar(select(exists().select_from(Product))):
            return
        for name, description, price_cents, stock in PRODUCTS:
            new = ProductIn(
                name=name, description=description, price_cents=price_cents, stock=stock
            )
            await catalog.create_product(write, new)
        password = secrets.token_urlsafe(12)
        await accounts.register(write, STAFF_EMAIL, SecretStr(password))
        await accounts.promote(write, STAFF_EMAIL)
    print(f"Seeded {len(PRODUCTS)} products. Staff: {STAFF_EMAIL}, password {password}")


if __name__ == "__main__":
    with ends_in_words():
        asyncio.run(main())
