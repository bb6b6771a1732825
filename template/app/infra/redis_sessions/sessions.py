# Rung's file: advancing to another stage may change it.
"""Installs the store of login sessions that SESSION_STORE names."""

from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from importlib import import_module

from fastapi import FastAPI
from pydantic import RedisDsn
from redis.asyncio.connection import parse_url

from app.infra import environment, health
from app.infra.cache.server import CacheSettings
from app.infra.environment import EnvironmentIncomplete
from app.infra.redis_sessions.least_position import LeastPosition
from app.infra.redis_sessions.settings import MoveSettings, Step
from app.infra.redis_sessions.store import RedisSessions
from app.infra.session_rows import SessionSettings


def install(app: FastAPI) -> None:
    settings: SessionSettings = app.state.session_settings
    move = environment.read(MoveSettings)
    app.state.session_redis = None
    if move.redis_url is None or move.store is Step.POSTGRES:
        return
    cache = environment.read(CacheSettings).url
    if cache and _database_of(cache) == _database_of(move.redis_url):
        raise EnvironmentIncomplete(
            "SESSION_REDIS_URL leads to the same database as CACHE_URL. The cache may drop any key,"
            " and users would be logged out. Give the cache another server: it needs no old data."
        )
    positions = getattr(app.state, "positions", None)
    least = LeastPosition(app.state.database.reader) if positions else None
    redis = _step(move.store)(str(move.redis_url), move.redis_seconds, settings, least)
    redis.rows = app.state.session_store
    app.state.session_store = app.state.session_redis = redis
    if positions:
        positions.in_rows = move.store is not Step.REDIS
        positions.note_beside_rows = redis.note_position
    health.add_readiness_check(app, "sessions", redis.check)


def lifespan(app: FastAPI) -> AbstractAsyncContextManager[object]:
    redis: RedisSessions | None = app.state.session_redis
    return aclosing(redis) if redis else nullcontext()


def _database_of(url: RedisDsn) -> tuple[object, ...]:
    parts = parse_url(str(url))
    return parts["host"].lower(), parts["port"], parts["db"]


def _step(step: Step) -> type[RedisSessions]:
    if step is Step.REDIS:
        return RedisSessions
    # Imported only while sessions move: the folder `move` may be deleted afterwards.
    try:
        steps = import_module("app.infra.redis_sessions.move.steps")
    except ModuleNotFoundError as error:
        raise EnvironmentIncomplete(
            f"SESSION_STORE={step} needs app/infra/redis_sessions/move, which was deleted after the"
            " move: set SESSION_STORE=redis."
        ) from error
    found: type[RedisSessions] = steps.STEPS[step]
    return found
