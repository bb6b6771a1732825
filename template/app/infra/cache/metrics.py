# Rung's file: advancing to another stage may change it.
"""Metrics of the cache. deploy/telemetry/ shows them and raises alerts on them."""

from collections.abc import Iterator

from app.infra.cache.server import Stats
from app.infra.telemetry.metrics import Instrument
from app.infra.telemetry.tracing import Attributes


def of_cache(stats: Stats | None) -> list[Instrument]:
    """Without a cache there is nothing to count, and the metrics have no points."""
    counted = [stats] if stats else []
    return [
        Instrument(
            "cache.lookups",
            "{lookup}",
            "Results of lookups; bypassed, when the cache was not asked",
            "counter",
            lambda: _lookups(counted),
        ),
        Instrument(
            "cache.refreshes",
            "{refresh}",
            "Answers that were read again before they expired",
            "counter",
            lambda: [(stats.refreshes, {}) for stats in counted],
        ),
        Instrument(
            "cache.failures",
            "{operation}",
            "Operations that the cache did not do, or not in time",
            "counter",
            lambda: [(stats.failures, {}) for stats in counted],
        ),
    ]


def _lookups(counted: list[Stats]) -> Iterator[tuple[float, Attributes]]:
    for stats in counted:
        yield stats.hits, {"cache.result": "hit"}
        yield stats.misses, {"cache.result": "miss"}
        yield stats.bypassed, {"cache.result": "bypassed"}
