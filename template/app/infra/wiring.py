# Rung's file: advancing to another stage may change it.
"""What this service has, as a list. Nothing is found by scanning folders."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from app.infra import database, files, health, logs, security, sessions, signing

# Settings are read here, so that a wrong one stops the process before it listens.
# Middleware wraps what stands above it: logs come last, so that they see every answer.
INSTALLED = (
    signing.install,
    database.install,
    sessions.install,
    files.install,
    health.install,
    security.install,
    logs.install,
)

# Opened in this order before the first request, closed in reverse after the last.
STARTED = (database.lifespan,)


def install(app: FastAPI) -> None:
    for install_capability in INSTALLED:
        install_capability(app)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with AsyncExitStack() as stack:
        for start in STARTED:
            await stack.enter_async_context(start(app))
        yield
