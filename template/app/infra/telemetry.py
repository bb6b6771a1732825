# Rung's file: advancing to another stage may change it.
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI


def install(app: FastAPI) -> None: ...


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    yield
