# Rung's file: advancing to another stage may change it.
"""The cache's Redis for the doctor: when it is too small, it drops entries in use."""

from app.infra import environment
from app.infra.cache.redis_seen import RedisSeen, look_at_redis, rules_of
from app.infra.cache.server import CacheSettings
from app.infra.doctor.evidence import Evidence
from app.infra.doctor.finding import Capability, CapabilityEvidence, Finding, Window, seen

NAME = "the cache"


async def look(window: Window) -> CapabilityEvidence | None:
    url = environment.read(CacheSettings).url
    if url is None:
        return None
    return CapabilityEvidence(await look_at_redis(url, window.seconds, "CACHE_URL"))


def too_small(evidence: Evidence) -> Finding | None:
    found = seen(evidence, RedisSeen, NAME)
    if not found or not found.evicted or found.evicted < 0.1 * found.misses:
        return None
    hits = found.hits / max(found.hits + found.misses, 1)
    if hits >= 0.8:
        return None  # it drops entries that nobody reads
    return Finding(
        rule="cache-too-small",
        text="the cache drops answers that are asked for again",
        do="raise maxmemory, or store less: smaller answers, fewer parameters",
        evidence=[
            f"{found.evicted:,} dropped, {found.misses:,} not found, {hits:.0%} found (INFO)",
            found.memory_used,
        ],
    )


def drops_nothing(evidence: Evidence) -> Finding | None:
    """noeviction is the default of Redis."""
    found = seen(evidence, RedisSeen, NAME)
    if not found or not found.is_nearly_full or found.policy != "noeviction":
        return None
    return Finding(
        rule="cache-too-small",
        text="the cache is full and drops nothing, so it takes no new answer",
        do="set maxmemory-policy to allkeys-lfu",
        evidence=[f"{found.memory_used} (INFO)"],
    )


CACHE = Capability(NAME, RedisSeen, look, (*rules_of(NAME), too_small, drops_nothing))
