# Rung's file: advancing to another stage may change it.
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient, create_ssl_context

from app import errors
from app.infra import wiring
from dev.pytest_plugin import Services

# Shared, for to read the authorities takes 15 ms.
TLS = create_ssl_context()

type Serve = Callable[[FastAPI], AbstractAsyncContextManager[AsyncClient]]


@pytest.fixture
def bare(services: Services) -> FastAPI:
    """What every service of this stage has, without business: a test adds what it needs."""
    return bare_app()


def bare_app() -> FastAPI:
    """Of the environment as it is."""
    app = FastAPI(**wiring.OPTIONS)
    errors.install(app)
    wiring.install(app)
    return app


@pytest.fixture
def serve() -> Serve:
    """Starts an app; answers with a browser."""

    @asynccontextmanager
    async def serve(app: FastAPI) -> AsyncGenerator[AsyncClient]:
        async with app.router.lifespan_context(app), browser(app) as client:
            yield client

    return serve


def browser(app: FastAPI) -> AsyncClient:
    return AsyncClient(
        mounts={"all://shop.test": ASGITransport(app)}, base_url="https://shop.test", verify=TLS
    )
