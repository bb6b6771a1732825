# Rung's file: advancing to another stage may change it.
"""Judges the login sessions' Redis for the doctor: no key may be lost, so it must not be full."""

from app.infra import environment
from app.infra.cache.redis_seen import RedisSeen, look_at_redis, rules_of
from app.infra.doctor.evidence import Evidence
from app.infra.doctor.finding import Capability, CapabilityEvidence, Finding, Window, seen
from app.infra.redis_sessions.settings import MoveSettings

NAME = "login sessions"


async def look(window: Window) -> CapabilityEvidence | None:
    url = environment.read(MoveSettings).redis_url
    if url is None:
        return None
    return CapabilityEvidence(await look_at_redis(url, window.seconds, "SESSION_REDIS_URL"))


def nearly_full(evidence: Evidence) -> Finding | None:
    found = seen(evidence, RedisSeen, NAME)
    if not found or not found.is_nearly_full:
        return None
    return Finding(
        rule="sessions-full",
        text="Redis of login sessions is nearly full, and then nobody can log in",
        do="raise maxmemory",
        evidence=[f"{found.memory_used} (INFO)"],
    )


def may_drop(evidence: Evidence) -> Finding | None:
    """As servers of Azure, Google and Render do, unless somebody says otherwise."""
    found = seen(evidence, RedisSeen, NAME)
    if not found or not found.most_memory or found.policy in {"", "noeviction"}:
        return None
    return Finding(
        rule="sessions-dropped",
        text="Redis of login sessions drops them when it is full, and users are logged out",
        do="set maxmemory-policy to noeviction",
        evidence=[f"maxmemory-policy is {found.policy} (INFO)"],
    )


SESSIONS = Capability(NAME, RedisSeen, look, (may_drop, nearly_full, *rules_of(NAME)))
