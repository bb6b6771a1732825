# Rung's file: advancing to another stage may change it.
"""Logs one line a minute: the process's share of a processor, its event loop and its pools."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

import structlog
from fastapi import FastAPI

from app.infra import environment
from app.infra.database import Pools
from app.infra.freshness import repeated_reads
from app.infra.logs import LogSettings, stdout

log = structlog.get_logger()

LOOK_SECONDS = 0.1

# The event loop's thread: nanoseconds on a processor, and nanoseconds waiting for one.
SCHEDULER = Path("/proc/thread-self/schedstat")


class Processor(NamedTuple):
    at: float
    got: float  # seconds on a processor so far
    waited: float | None  # seconds of waiting so far. None where the kernel counts none

    def since(self, before: "Processor") -> dict[str, float | None]:
        """Shares of one processor. `wanted` above `got` means that others had it."""
        seconds = self.at - before.at
        got = (self.got - before.got) / seconds
        if self.waited is None or before.waited is None:
            return {"cpu_got": round(got, 3), "cpu_wanted": None}
        wanted = min(got + (self.waited - before.waited) / seconds, 1.0)
        return {"cpu_got": round(got, 3), "cpu_wanted": round(wanted, 3)}


def processor() -> Processor:
    now = time.monotonic()
    try:
        got, waited, _ = SCHEDULER.read_text().split()
    except (OSError, ValueError):
        return Processor(now, time.thread_time(), None)
    return Processor(now, int(got) / 1e9, int(waited) / 1e9)


async def write_lines(app: FastAPI, seconds: float) -> None:
    while True:
        seen = await watch(app.state.pools, seconds, getattr(app.state, "note_loop_delay", None))
        log.info("process", pid=os.getpid(), log_lines_lost=stdout.lost, **seen)


async def watch(
    pools: Pools, seconds: float, note_delay: Callable[[float], None] | None = None
) -> dict[str, Any]:
    """Gives `note_delay` the delay of the event loop at each look."""
    begun, delays = processor(), []
    used, waiting = Counter[str](), Counter[str]()
    reads, hits = repeated_reads.reads, repeated_reads.hits
    now = begun.at
    while now < begun.at + seconds:
        due = now + LOOK_SECONDS
        await asyncio.sleep(LOOK_SECONDS)
        now = time.monotonic()
        delays.append(max(0.0, now - due))
        if note_delay:
            note_delay(delays[-1])
        for name, pool in pools().items():
            used[name] += pool.used
            waiting[name] += pool.waiting > 0
    ended = processor()
    tenths = [delays[0]] * 9 if len(delays) < 2 else quantiles(delays, n=10, method="inclusive")
    return {
        "seconds": round(ended.at - begun.at, 1),
        **ended.since(begun),
        "loop_p50_ms": round(tenths[4] * 1000, 1),
        "loop_p90_ms": round(tenths[8] * 1000, 1),
        # Means of the samples: connections in use, and the share in which a request waited.
        "pools": {
            name: {
                "max": pool.most,
                "used": round(used[name] / len(delays), 2),
                "waiting": round(waiting[name] / len(delays), 3),
            }
            for name, pool in pools().items()
        },
        "stale_reads": repeated_reads.reads - reads,
        "stale_repeats": repeated_reads.hits - hits,
    }


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    seconds = environment.read(LogSettings).process_seconds
    writing = asyncio.create_task(write_lines(app, seconds))
    try:
        yield
    finally:
        writing.cancel()
