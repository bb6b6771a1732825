# Rung's file: advancing to another stage may change it.
"""Answers that may be as old as their query's @max_stale, kept in Redis.

Each is kept with the position that the primary's log had before it was read. Who must see a
position is given only what was read behind it, and a newer answer is never replaced by an older.
"""

import asyncio
import math
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from contextvars import Context
from datetime import timedelta
from typing import Any, Self

import structlog
from fastapi import FastAPI
from opentelemetry.trace import SpanKind
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only
from starlette.types import ASGIApp, Receive, Scope, Send

from app.infra import environment
from app.infra.cache import query
from app.infra.cache.entry import Entry, forgotten, spelled
from app.infra.cache.loads import Load, Loads
from app.infra.cache.query import CachedQuery, cache_of_this_visit
from app.infra.cache.sampler import Sampler
from app.infra.cache.server import CacheAway, CacheServer, CacheSettings
from app.infra.connections import DatabaseSettings
from app.infra.failures import Unavailable
from app.infra.own_writes import commits
from app.infra.own_writes.commits import PositionedSession
from app.infra.own_writes.log_position import NOT_KNOWN, Position
from app.infra.own_writes.visits import Visit, current_visit, this_visit
from app.infra.reads import Reader
from app.infra.telemetry import tracing

log = structlog.get_logger()

# What took longer to read is not kept: a write that it does not show must still be remembered.
LONGEST_LOAD = 20.0
FORGOTTEN_FOR = 2 * LONGEST_LOAD

# One process reads it anew after so much of its life, so that nobody has to wait for it.
DUE_AFTER = 0.8

REDIS = {"db.system.name": "redis"}

# That there is nothing holds only until somebody creates it.
NOTHING = frozenset({b"null", b"[]", b"{}"})
NOTHING_LIVES = (1.0, 3.0)

# Another process is reading it anew; what we have is good meanwhile.
ASK_AGAIN_SECONDS = 1.0


class Cache:
    def __init__(self, settings: CacheSettings, server: CacheServer, loads: Loads) -> None:
        self.stats = server.stats
        self._prefix = settings.prefix
        self._gives_answers = settings.reads
        self._server = server
        self._loads = loads
        self._sampler = Sampler()
        self._refreshing: set[str] = set()

    @property
    def is_reachable(self) -> bool:
        return self._server.is_reachable

    def read[R](
        self, query: CachedQuery[..., R], read: Reader, args: Any, kwargs: Any
    ) -> Awaitable[R]:
        if self._gives_answers and self._server.is_reachable:
            return self._read(query, read, args, kwargs)
        return self._bypass(query, read, args, kwargs)

    async def _read[R](self, query: CachedQuery[..., R], read: Reader, args: Any, kwargs: Any) -> R:
        key = f"{self._prefix}:{query.key(args, kwargs)}"
        try:
            with tracing.span(f"cache get {query.name}", REDIS, SpanKind.CLIENT):
                entry = Entry.parse(await self._server.get(key))
        except CacheAway:
            return await self._bypass(query, read, args, kwargs)
        must_see = this_visit().must_see

        def fetch(load: Load) -> Awaitable[bytes]:
            return self._fetch(key, query, read, args, kwargs, load)

        if entry and entry.shows(must_see):
            try:
                answer = query.decode(entry.body)
            except ValidationError:
                log.warning("what was cached does not parse", key=key)
            else:
                self.stats.hits += 1
                if entry.is_due():
                    self._refresh_soon(key, _lifetime(entry.body, query.max_stale), fetch)
                return answer
        self.stats.misses += 1
        with tracing.span(f"cache load {query.name}"):
            return query.decode(await self._loads.share(key, must_see, fetch))

    def forget_after(self, session: Session, key: str) -> None:
        session.info.setdefault("to_forget", set()).add(f"{self._prefix}:{key}")

    async def forget(self, keys: set[str]) -> None:
        entry = forgotten(this_visit().must_see or NOT_KNOWN)
        with suppress(CacheAway):
            await asyncio.gather(*(self._server.put(key, entry, FORGOTTEN_FOR) for key in keys))

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._loads.stop()
        await self._server.__aexit__()

    async def _bypass[R](
        self, query: CachedQuery[..., R], read: Reader, args: Any, kwargs: Any
    ) -> R:
        self.stats.bypassed += 1
        await self._loads.turns.take()
        outside = cache_of_this_visit.set(None)  # What is asked within has its turn already.
        try:
            return await query.ask(read, *args, **kwargs)
        finally:
            cache_of_this_visit.reset(outside)
            self._loads.turns.give_back()

    async def _fetch[R](
        self,
        key: str,
        query: CachedQuery[..., R],
        read: Reader,
        args: Any,
        kwargs: Any,
        load: Load,
    ) -> bytes:
        _begin_visit_that_sees_all()
        await self._loads.turns.take()
        try:
            began = time.monotonic()
            load.as_of = await self._sampler.sample(read)
            self.stats.loads += 1
            body = query.encode(await query.ask(read, *args, **kwargs))
        finally:
            self._loads.turns.give_back()
        if load.as_of:
            await self._keep(key, load.as_of, body, query.max_stale, time.monotonic() - began)
        return body

    async def _keep(
        self, key: str, as_of: Position, body: bytes, max_stale: timedelta, age: float
    ) -> None:
        seconds = _lifetime(body, max_stale) - age
        if seconds > 0 and age < LONGEST_LOAD:
            due = int((time.time() + seconds * DUE_AFTER) * 1000)
            with suppress(CacheAway):
                await self._server.put(key, Entry(spelled(as_of), due, body), seconds)

    def _refresh_soon(
        self, key: str, lifetime: float, fetch: Callable[[Load], Awaitable[bytes]]
    ) -> None:
        if key not in self._refreshing:
            self._refreshing.add(key)
            # Of its own, and no part of the request that happens to begin it.
            self._loads.start(self._refresh(key, lifetime, fetch), Context())

    async def _refresh(
        self, key: str, lifetime: float, fetch: Callable[[Load], Awaitable[bytes]]
    ) -> None:
        # Until the answer that we have ends, and no longer: then somebody waits for the next.
        claimed_for = min(LONGEST_LOAD, lifetime * (1 - DUE_AFTER))
        try:
            if await self._server.claim(f"{key}:refresh", claimed_for):
                self.stats.refreshes += 1
                await self._loads.share(key, None, fetch)
            else:
                await asyncio.sleep(min(ASK_AGAIN_SECONDS, claimed_for))
        except (CacheAway, Unavailable) as error:
            log.warning("what is cached could not be refreshed", key=key, reason=repr(error))
        finally:
            self._refreshing.discard(key)


def _lifetime(body: bytes, max_stale: timedelta) -> float:
    """Never longer than allowed; by how much shorter differs, or all would end together."""
    seconds = max_stale.total_seconds() * random.uniform(0.9, 1)  # noqa: S311
    return min(seconds, random.uniform(*NOTHING_LIVES)) if body in NOTHING else seconds  # noqa: S311


def _begin_visit_that_sees_all() -> None:
    """For this task, whoever began it: it reads from the primary, and nothing that was kept."""
    visit = Visit()
    visit.wrote(NOT_KNOWN)
    current_visit.set(visit)
    cache_of_this_visit.set(None)


# Commits note their position first, for that listener was registered first.
@event.listens_for(PositionedSession, "after_commit")
def _forget(session: Session) -> None:
    cache = cache_of_this_visit.get()
    if cache and "to_forget" in session.info and not session.in_nested_transaction():
        await_only(cache.forget(session.info.pop("to_forget")))


class CacheWithinReach:
    """Of the queries that a request asks. Servers give each request a context of its own."""

    def __init__(self, app: ASGIApp, cache: Cache) -> None:
        self.app = app
        self.cache = cache

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        cache_of_this_visit.set(self.cache)
        return self.app(scope, receive, send)


def install(app: FastAPI) -> None:
    settings = environment.read(CacheSettings)
    app.state.cache = None
    if settings.url:
        server = CacheServer(settings.url, settings.operation_seconds)
        database = environment.read(DatabaseSettings)
        at_once = settings.loads or math.ceil(database.read_pool * 3 / 4)
        loads = Loads(at_once, database.pool_wait_seconds)
        app.state.cache = Cache(settings, server, loads)
        commits.note_positions(app)
        app.add_middleware(CacheWithinReach, cache=app.state.cache)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    for promised in query.promised:
        promised.check()
    async with app.state.cache or nullcontext():
        yield
