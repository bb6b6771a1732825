# Rung's file: advancing to another stage may change it.
"""/live and /ready, for load balancers."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Literal

import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import BaseModel

from app.infra.failures import Unavailable, reason_of

log = structlog.get_logger()

# A load balancer asks every few seconds. It must get its answer before it asks again.
CHECK_SECONDS = 1.0

type ReadinessCheck = Callable[[], Awaitable[None]]


class Health(BaseModel):
    status: Literal["ok", "unavailable"]
    unavailable: list[str] = []


type Readiness = Callable[[Request], Awaitable[Health]]


router = APIRouter(tags=["health"])


@router.get("/live", summary="The process answers")
async def live() -> Health:
    return Health(status="ok")


@router.get(
    "/ready",
    summary="The process can serve requests",
    responses={
        503: {"model": Health, "description": "A server that it depends on does not answer"}
    },
)
async def ready(request: Request, response: Response) -> Health:
    readiness: Readiness = request.app.state.readiness
    health = await readiness(request)
    if health.status == "unavailable":
        response.status_code = 503
    return health


async def everything_answers(request: Request) -> Health:
    unavailable = await unavailable_now(request.app)
    return Health(status="unavailable" if unavailable else "ok", unavailable=unavailable)


async def unavailable_now(app: FastAPI) -> list[str]:
    checks: dict[str, ReadinessCheck] = app.state.readiness_checks
    return [name for name, check in checks.items() if not await _passes(name, check)]


async def _passes(name: str, check: ReadinessCheck) -> bool:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except (Unavailable, TimeoutError) as error:
        log.warning("unavailable", check=name, reason=reason_of(error))
        return False
    except Exception:  # a mistake in the check must not end a task that checks at intervals
        log.exception("a readiness check failed", check=name)
        return False
    return True


def add_readiness_check(app: FastAPI, name: str, check: ReadinessCheck) -> None:
    app.state.readiness_checks = {**getattr(app.state, "readiness_checks", {}), name: check}


def install(app: FastAPI, readiness: Readiness = everything_answers) -> None:
    app.state.readiness = readiness
    app.include_router(router)
