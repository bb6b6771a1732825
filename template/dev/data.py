# Rung's file: advancing to another stage may change it.
"""Pages of `make dev` that show the rows of each table, and change none."""

import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from jinja2 import DictLoader
from pydantic import PostgresDsn
from sqlalchemy import TypeDecorator
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Mapper
from sqlalchemy.pool import NullPool
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette_admin.contrib.sqla import Admin, ModelView
from starlette_admin.contrib.sqla.converters import ModelConverter
from starlette_admin.contrib.sqla.exceptions import NotSupportedColumn
from starlette_admin.fields import BaseField

from app.infra import environment
from app.infra.connections import DatabaseSettings, connect
from app.infra.database import Base
from dev import services

PLACE = "/_dev/data"
# Of the header itself: Starlette takes a name with { or " for the server's own address.
HOST_HERE = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
# The library's own page loads a font from the internet, and is always light.
PAGE = Path(__file__).with_name("data.html")
# The library makes a key from a text by its type, which fails for bytes and times.
FOUND_BY_KEY = frozenset({int, str, UUID})


class Rows(ModelView):
    """Read-only: a change would bypass the team's rules, the cache and clients' positions."""

    def __init__(self, mapper: Mapper[Any]) -> None:
        columns: list[Any] = [column.key for column in mapper.column_attrs]
        self.fields = columns
        name = mapper.local_table.description
        super().__init__(mapper.class_, None, name, name, name, AnyColumn())
        key = self._pk_coerce if isinstance(self._pk_coerce, tuple) else (self._pk_coerce,)
        self._found_by_key = FOUND_BY_KEY.issuperset(key)

    def can_view_detail(self, request: Request) -> bool:
        return self._found_by_key

    def can_create(self, request: Request) -> bool:
        return False

    can_edit = can_delete = can_import = can_create


class AnyColumn(ModelConverter):
    """Shows as text what the library does not know: an enum of strings, an array of arrays."""

    def convert(self, *args: Any, **kwargs: Any) -> BaseField:
        # The values of a TypeDecorator may be of any type: an Interval is stored as a time.
        if not isinstance(kwargs["type"], TypeDecorator):
            with suppress(NotSupportedColumn, ValueError):
                return super().convert(*args, **kwargs)
        return self.conv_string(*args, **kwargs)


class OnlyHere:
    """Serves this machine only, because Rung cannot know the staff of this business."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http" and not is_here(Request(scope)):
            answer = PlainTextResponse("Open this page as http://127.0.0.1, on this machine.", 403)
        await answer(scope, receive, send)


def is_here(request: Request) -> bool:
    """Checks the host name too, because a stranger's name may point to 127.0.0.1."""
    sender = request.client.host if request.client else None
    forwarded = {"forwarded", "x-forwarded-for", "x-forwarded-host"} & set(request.headers)
    host = HOST_HERE.fullmatch(request.headers.get("host", ""))
    return host is not None and sender in {"127.0.0.1", "::1"} and not forwarded


def pages(title: str) -> list[BaseRoute]:
    """The pages of the models that the app has imported."""
    admin = Admin(
        sessions(),
        title=title,
        base_url=PLACE,
        secret_key=secrets.token_urlsafe(),
        additional_loaders=[DictLoader({"base.html": PAGE.read_text(encoding="utf-8")})],
        middlewares=[Middleware(OnlyHere)],
    )
    tables = {one.local_table.description: one for one in Base.registry.mappers if not one.single}
    for _, mapper in sorted(tables.items()):
        admin.add_view(Rows(mapper))
    holder = Starlette()
    admin.mount_to(holder)
    return holder.routes


def sessions() -> async_sessionmaker[AsyncSession]:
    """Each database other than the common one holds the rows of one module, and has its name."""
    databases = services.databases(os.environ).items()
    of_module = {command[-1]: engine(PostgresDsn(url)) for url, command in databases}
    binds = {
        mapper.class_: of_module[name]
        for mapper in Base.registry.mappers
        for name in mapper.class_.__module__.split(".")[1:2]
        if name in of_module
    }
    return async_sessionmaker(engine(), binds=binds, expire_on_commit=False)


def engine(url: PostgresDsn | None = None) -> AsyncEngine:
    async def connection() -> asyncpg.Connection:
        settings = environment.read(DatabaseSettings)
        return await connect(settings, url or settings.direct_url, read_only=True)

    return create_async_engine(
        "postgresql+asyncpg://", poolclass=NullPool, async_creator=connection
    )
