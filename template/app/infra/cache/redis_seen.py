# Rung's file: advancing to another stage may change it.
"""Reads a Redis for the doctor: its processor, memory, refused connections and slow commands."""

import asyncio
import time
from typing import Any

from pydantic import RedisDsn
from redis.asyncio import Redis
from redis.exceptions import RedisError

from app.infra.doctor.evidence import Evidence, EvidencePart
from app.infra.doctor.finding import Finding, Missing, Rule, seen
from app.infra.doctor.looking import increase
from app.infra.failures import reason_of

ANSWER_SECONDS = 3.0
SLOWEST = 128


class RedisSeen(EvidencePart):
    """The counts of one Redis in the window. Redis runs commands on one processor."""

    processor: float
    memory: int
    most_memory: int  # 0: without a limit
    policy: str = ""  # at that limit. Empty: not known
    evicted: int
    hits: int
    misses: int
    refused: int  # connections
    slow: int  # commands, above the server's own slowlog-log-slower-than
    slowest_ms: float
    slowest: str  # the command's name alone: its arguments may be secrets

    @property
    def is_nearly_full(self) -> bool:
        return self.most_memory > 0 and self.memory >= 0.9 * self.most_memory

    @property
    def memory_used(self) -> str:
        return f"{self.memory >> 20} of {self.most_memory >> 20} MiB are used"


async def look_at_redis(url: RedisDsn, seconds: float, variable: str) -> RedisSeen:
    """The difference of two readings. Raises Missing."""
    remedy = f'redis-cli -u "${variable}" INFO: the doctor needs INFO and SLOWLOG GET'
    client = Redis.from_url(
        str(url),
        socket_timeout=ANSWER_SECONDS,
        socket_connect_timeout=ANSWER_SECONDS,
    )
    try:
        before = await client.info("everything")
        last = max([one["id"] for one in await client.slowlog_get(1)], default=-1)
        began = time.monotonic()
        await asyncio.sleep(seconds)
        after = await client.info("everything")
        took = time.monotonic() - began
        slow = [one for one in await client.slowlog_get(SLOWEST) if one["id"] > last]
        slowest = max(slow, key=lambda one: one["duration"], default=None)
        return RedisSeen(
            processor=(_processor(after) - _processor(before)) / took,
            memory=after["used_memory"],
            most_memory=after.get("maxmemory", 0),
            policy=after.get("maxmemory_policy", ""),
            evicted=increase(before["evicted_keys"], after["evicted_keys"]),
            hits=increase(before["keyspace_hits"], after["keyspace_hits"]),
            misses=increase(before["keyspace_misses"], after["keyspace_misses"]),
            refused=increase(before["rejected_connections"], after["rejected_connections"]),
            slow=len(slow),
            slowest_ms=slowest["duration"] / 1000 if slowest else 0.0,
            slowest=slowest["command"].split()[0].decode(errors="replace") if slowest else "",
        )
    except KeyError as error:  # a server that is like Redis, such as some hosted ones
        raise Missing(f"its INFO has no {error}", remedy) from error
    except (RedisError, OSError) as error:
        raise Missing(reason_of(error), remedy) from error
    finally:
        await client.aclose()


def _processor(info: dict[str, Any]) -> float:
    return float(info["used_cpu_user_main_thread"] + info["used_cpu_sys_main_thread"])


def rules_of(name: str) -> tuple[Rule, Rule]:
    def refuses(evidence: Evidence) -> Finding | None:
        found = seen(evidence, RedisSeen, name)
        if not found or not found.refused:
            return None
        return Finding(
            rule="redis-refuses",
            text=f"Redis of {name} refuses connections",
            do="count them with `make budget`, then raise maxclients",
            evidence=[f"{found.refused} refused in the window (INFO)"],
        )

    def is_busy(evidence: Evidence) -> Finding | None:
        """Its one processor is the limit, or a slow command delays all others."""
        found = seen(evidence, RedisSeen, name)
        if not found or (found.processor < 0.7 and (found.slow < 10 or found.slowest_ms < 50)):
            return None
        busy = f"{found.processor:.0%} of its processor (INFO)"
        slow = f"{found.slow} slow commands, the slowest {found.slowest} {found.slowest_ms:.0f} ms"
        return Finding(
            rule="redis-busy",
            text=f"Redis of {name} is busy",
            do="end the slow command, store smaller values, then a quicker processor",
            evidence=[f"{busy}; {slow} (SLOWLOG)" if found.slow else f"{busy} (SLOWLOG)"],
        )

    return refuses, is_busy
