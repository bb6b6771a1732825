# Rung's file: advancing to another stage may change it.
"""Answers of queries with @max_stale, cached in Redis.

Each entry stores the primary's WAL position from before its read. A client that must see a position
gets only answers read after it. An older answer never replaces a newer one.
"""

import asyncio
import random
import time
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from contextvars import Context
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, Self

import structlog
from fastapi import FastAPI
from opentelemetry.trace import SpanKind
from pydantic import ValidationError
from sqlalchemy import event
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from app.infra import environment
from app.infra.cache.entry import Entry, NotCacheable, format_of, has_no_rows, tombstone
from app.infra.cache.loads import Load, ReadLimit, Sampler, SingleFlight
from app.infra.cache.lookups import RedisAway
from app.infra.cache.server import CacheServer, CacheSettings, Stats, metrics_of
from app.infra.connections import DatabaseSettings
from app.infra.database import Database
from app.infra.failures import Unavailable
from app.infra.freshness import StaleQuery, repeated_reads, stale_queries
from app.infra.own_writes import commits
from app.infra.own_writes.client import OwnWrites, this_client
from app.infra.own_writes.commits import PositionedSession
from app.infra.own_writes.log_position import NOT_KNOWN, encoded
from app.infra.reads import Reader
from app.infra.telemetry import tracing
from app.infra.telemetry.metrics import observe

log = structlog.get_logger()

# A slower read is not cached: the tombstones of concurrent writes may have expired.
LONGEST_LOAD = 20.0
TOMBSTONE_SECONDS = 2 * LONGEST_LOAD

# One process refreshes an entry at this share of its lifetime, so that no request waits for it.
DUE_AFTER = 0.8
SHORTEST = 0.9  # share of max_stale that an entry lives

# An answer without rows is cached briefly: the first row may be created at any moment.
EMPTY_SECONDS = (1.0, 3.0)

# While another process refreshes an entry, this one serves the old answer, and retries after this.
ASK_AGAIN_SECONDS = 1.0

REDIS = {"db.system.name": "redis"}


class Call[R](NamedTuple):
    query: StaleQuery[..., R]
    read: Reader
    args: Any
    kwargs: Any


class Cache:
    def __init__(self, settings: CacheSettings, server: CacheServer, limit: ReadLimit) -> None:
        self.server = server
        self.stats = Stats(server)
        self._prefix = settings.prefix
        self._gives_answers = settings.reads
        self._limit = limit
        self._single_flight = SingleFlight()
        self._sampler = Sampler()
        self._refreshing: set[str] = set()

    async def read[R](self, query: StaleQuery[..., R], read: Reader, args: Any, kwargs: Any) -> R:
        call = Call(query, read, args, kwargs)
        if not (self._gives_answers and self.server.is_reachable):
            return await self._bypass(call)
        form = format_of(query)
        try:
            key = f"{self._prefix}:{form.key(args, kwargs)}"
            with tracing.span(f"cache get {form.name}", REDIS, SpanKind.CLIENT):
                stored = await self.server.get(key)
        except RedisAway:
            return await self._bypass(call)
        except NotCacheable as error:
            return await self._bypass(call, error)
        entry = Entry.parse(stored) if stored else None
        client = this_client()
        main = client.main
        min_position = main.position if main.is_resolved else await client.resolve(main)

        if entry and entry.shows(min_position):
            try:
                answer: R = form.decode(entry.body)
            except ValidationError:
                log.warning("a cached answer does not parse", query=form.name)
            else:
                self.stats.hits += 1
                if entry.is_due() and key not in self._refreshing:
                    self._refreshing.add(key)
                    refresh = self._refresh(key, call, _lifetime(entry.body, query.max_stale))
                    # In an empty context: it does not belong to the request that starts it.
                    self._single_flight.start(refresh, Context())
                return answer
        if read.needs_a_replica(query.max_stale):
            return await self._bypass(call)
        self.stats.misses += 1
        fetch = partial(self._fetch, key, call)
        try:
            with tracing.span(f"cache load {form.name}"):
                loaded: R = form.decode(await self._single_flight.load(key, min_position, fetch))
                return loaded
        except NotCacheable as error:
            return await self._bypass(call, error)

    def invalidate_after(
        self, session: Session, query: StaleQuery[..., Any], args: Any, kwargs: Any
    ) -> None:
        form = format_of(query)
        try:
            key = f"{self._prefix}:{form.key(args, kwargs)}"
        except NotCacheable as error:  # such as a whole row in place of its id
            log.warning(f"nothing was invalidated: {error}", query=form.name)
        else:
            session.info.setdefault("invalidated", set()).add(key)

    async def invalidate(self, keys: set[str]) -> None:
        entry = tombstone(this_client().main.position or NOT_KNOWN)
        with suppress(RedisAway):
            await asyncio.gather(*(self.server.put(key, entry, TOMBSTONE_SECONDS) for key in keys))

    async def __aenter__(self) -> Self:
        await self.server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._single_flight.stop()
        await self.server.__aexit__()

    async def _bypass[R](self, call: Call[R], why: NotCacheable | None = None) -> R:
        query, read, args, kwargs = call
        if why:
            log.warning(str(why), query=format_of(query).name)
        self.stats.bypassed += 1
        repeated_reads.note(query, args, kwargs, query.max_stale.total_seconds())
        async with self._limit:
            return await query.ask(read.within(query.max_stale), *args, **kwargs)

    async def _fetch(self, key: str, call: Call[Any], load: Load) -> bytes:
        query, read, args, kwargs = call
        primary = read.on_primary()
        async with self._limit:
            began = time.monotonic()
            load.as_of = await self._sampler.sample(primary)
            self.stats.loads += 1
            until_refresh = query.max_stale.total_seconds() * SHORTEST * DUE_AFTER
            repeated_reads.note(query, args, kwargs, until_refresh)
            answer = await query.ask(primary, *args, **kwargs)
        body = format_of(query).encode(answer)
        age = time.monotonic() - began
        seconds = _lifetime(body, query.max_stale) - age
        if load.as_of and seconds > 0 and age < LONGEST_LOAD:
            due = int((time.time() + seconds * DUE_AFTER) * 1000)
            with suppress(RedisAway):
                await self.server.put(key, Entry(encoded(load.as_of), due, body), seconds)
        return body

    async def _refresh(self, key: str, call: Call[Any], lifetime: float) -> None:
        # Retries stop when the entry expires. After that a request loads it and waits.
        claimed_for = min(LONGEST_LOAD, lifetime * (1 - DUE_AFTER))
        try:
            if await self.server.claim(f"{key}:refresh", claimed_for):
                self.stats.refreshes += 1
                await self._single_flight.load(key, None, partial(self._fetch, key, call))
            else:
                await asyncio.sleep(min(ASK_AGAIN_SECONDS, claimed_for))
        except (Unavailable, NotCacheable) as error:
            name = format_of(call.query).name
            # Never the key, because it holds the arguments, which may name a person.
            log.warning("a cached answer could not be refreshed", query=name, reason=repr(error))
        finally:
            self._refreshing.discard(key)


def _lifetime(body: bytes, max_stale: timedelta) -> float:
    """At most max_stale. A random part is taken off, so that entries do not all expire together."""
    seconds = max_stale.total_seconds() * random.uniform(SHORTEST, 1)  # noqa: S311
    return min(seconds, random.uniform(*EMPTY_SECONDS)) if has_no_rows(body) else seconds  # noqa: S311


# SQLAlchemy calls listeners in the order of registration: the commit's position is noted already.
@event.listens_for(PositionedSession, "after_commit")
def _invalidate(session: Session) -> None:
    if "invalidated" in session.info and not session.in_nested_transaction():
        await_only(session.info["cache"].invalidate(session.info.pop("invalidated")))


def install(app: FastAPI) -> None:
    settings = environment.read(CacheSettings)
    app.state.cache = None
    if settings.url:
        server = CacheServer(settings.url, settings.operation_seconds, settings.prefix)
        pools = environment.read(DatabaseSettings)
        at_once = settings.loads or max(pools.read_pool * 7 // 8, 1)
        database: Database = app.state.database
        limit = ReadLimit(at_once, pools.pool_wait_seconds)
        database.cache = app.state.cache = Cache(settings, server, limit)
        commits.note_positions(app)
        observe(app, *metrics_of(app.state.cache.stats))


def lifespan(app: FastAPI) -> AbstractAsyncContextManager[object]:
    for query in stale_queries:
        format_of(query).check()
        # A client must know its writes for as long as an older answer may be cached.
        OwnWrites.remembered = max(OwnWrites.remembered, query.max_stale)
    cache: Cache | None = app.state.cache
    return cache or nullcontext()
