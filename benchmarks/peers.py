"""An app as FastAPI's and SQLAlchemy's tutorials write it, beside the generated app:

    uv run python ../rung/benchmarks/peers.py [--rounds 5] [--seconds 3]

Run it inside a generated repo. Needs wrk. One worker each, 32 connections, the same database. Each
round starts new processes, because starts differ. The tutorial's app checks a login and answers
with the same fields; it has no log line, no security headers and no limits.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from comparing import Against, report
from serving import (
    Cases,
    cookie_of_somebody,
    interleave_starts,
    items,
    migrated_and_filled,
    serve,
    serve_app,
)

TUTORIAL = """
import hashlib
import os
from typing import Annotated
from uuid import UUID

from fastapi import Cookie, Depends, FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
engine = create_async_engine(url, pool_size=16, max_overflow=0)
new_session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase): ...


class Product(Base):
    __tablename__ = "products"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    name: Mapped[str]
    description: Mapped[str]
    price_cents: Mapped[int]
    stock: Mapped[int]


class Account(Base):
    __tablename__ = "accounts"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]
    is_staff: Mapped[bool]


class Login(Base):
    __tablename__ = "login_sessions"
    token_hash: Mapped[bytes] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ProductOut(Out):
    id: UUID
    name: str
    description: str
    price_cents: int
    stock: int


class AccountOut(Out):
    id: UUID
    email: str
    is_staff: bool


class ProductPage(BaseModel):
    products: list[ProductOut]
    count: int


async def get_session():
    async with new_session() as session:
        yield session


Session = Annotated[AsyncSession, Depends(get_session)]


async def get_user(
    session: Session, token: Annotated[str | None, Cookie(alias="__Host-session")] = None
):
    if token is None:
        raise HTTPException(401)
    login = await session.get(Login, hashlib.sha256(token.encode()).digest())
    account = login and await session.get(Account, login.user_id)
    if account is None:
        raise HTTPException(401)
    return account


app = FastAPI()


@app.get("/hello")
async def hello():
    return {"hello": "world"}


@app.get("/products", response_model=ProductPage)
async def products(session: Session, limit: int = 20):
    found = await session.scalars(select(Product).order_by(Product.id.desc()).limit(limit))
    count = await session.scalar(select(func.count()).select_from(Product))
    return {"products": found.all(), "count": count}


@app.get("/products/{product_id}", response_model=ProductOut)
async def product(session: Session, product_id: UUID):
    found = await session.get(Product, product_id)
    if found is None:
        raise HTTPException(404)
    return found


@app.get("/me", response_model=AccountOut)
async def me(account: Annotated[Account, Depends(get_user)]):
    return account
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    with migrated_and_filled() as environment, tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tutorial.py").write_text(TUTORIAL, encoding="utf-8")

        @contextmanager
        def started() -> Iterator[Cases]:
            with ExitStack() as servers:
                arguments = ["--app-dir", folder, "tutorial:app"]
                peer = servers.enter_context(serve(arguments, environment)).url
                ours = servers.enter_context(serve_app(environment)).url
                cookie = ("-H", f"Cookie: {cookie_of_somebody(ours)}")
                [item] = items(ours)
                cases = {"hello": [f"{peer}/hello"]}
                for name, url in {"tutorial": peer, "this repo": ours}.items():
                    cases |= {
                        f"{name}, item": [f"{url}{item}"],
                        f"{name}, page": [f"{url}/products?limit=20"],
                        f"{name}, me": [f"{url}/me", *cookie],
                    }
                yield cases

        results = interleave_starts(started, options.rounds, options.seconds)
    report("what", results, Against("hello", "of hello", {}))
    print("\n| of the tutorial's requests a second | median | least | most |\n|---|---|---|---|")
    for route in ("item", "page", "me"):
        pairs = zip(results[f"this repo, {route}"], results[f"tutorial, {route}"], strict=True)
        parts = [run[0] / of[0] for run, of in pairs]
        print(f"| {route} | {statistics.median(parts):.1f} | {min(parts):.1f} | {max(parts):.1f} |")


if __name__ == "__main__":
    main()
