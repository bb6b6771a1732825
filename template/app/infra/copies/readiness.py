# Rung's file: advancing to another stage may change it.
"""Ready means that this copy can serve, not that all its servers answer.

A server that is down is down for every copy. If all copies became unready then, even cached reads
would fail. But a copy that has never reached its servers belongs to a failed deploy, so it gets no
traffic.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request

from app.infra import health
from app.infra.copies.draining import DRAINING
from app.infra.health import Health

# Checked in the background, not at each request for /ready. Otherwise fifty copies, asked three
# times a second, would open hundreds of connections to Postgres each second.
LOOK_SECONDS = 5.0
LOOK_SECONDS_UNTIL_REACHED = 0.5


class Dependencies:
    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._never_reached = set(app.state.readiness_checks)
        self.unavailable = sorted(self._never_reached)

    @property
    def were_all_reached(self) -> bool:
        return not self._never_reached

    async def look(self) -> None:
        self.unavailable = await health.unavailable_now(self._app)
        self._never_reached.intersection_update(self.unavailable)

    async def watch(self) -> None:
        while True:
            reached = self.were_all_reached
            await asyncio.sleep(LOOK_SECONDS if reached else LOOK_SECONDS_UNTIL_REACHED)
            await self.look()


async def can_serve(request: Request) -> Health:
    known: Dependencies = request.app.state.dependencies
    if getattr(request.state, DRAINING, False):
        return Health(status="unavailable", unavailable=["draining", *known.unavailable])
    status = "ok" if known.were_all_reached else "unavailable"
    return Health(status=status, unavailable=known.unavailable)


def install(app: FastAPI) -> None:
    health.install(app, readiness=can_serve)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    dependencies = app.state.dependencies = Dependencies(app)
    await dependencies.look()
    watch = asyncio.create_task(dependencies.watch())
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch
