# Rung's file: advancing to another stage may change it.
"""Counts of one process, read when they are sent.

Counting is an addition that takes 1 µs. The library's histogram takes 10 µs.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from fastapi import FastAPI

from app.infra.telemetry.tracing import Attributes


@dataclass(eq=False, slots=True)
class Buckets:
    """How many values were at most as great as each bound, but greater than the one before."""

    counts: list[int]
    sum: float = 0.0


@dataclass(eq=False, slots=True)
class Histogram[Key]:
    """A set of buckets for each key. Keys must be few: routes and statuses, never paths or ids."""

    name: str
    unit: str
    description: str
    bounds: Sequence[float]
    attributes: Callable[[Key], Attributes]
    _buckets: dict[Key, Buckets] = field(default_factory=dict, init=False)

    def note(self, key: Key, value: float) -> None:
        buckets = self._buckets.get(key)
        if buckets is None:
            buckets = self._buckets[key] = Buckets([0] * (len(self.bounds) + 1))
        buckets.counts[bisect_left(self.bounds, value)] += 1
        buckets.sum += value

    def read(self) -> list[tuple[Buckets, Attributes]]:
        return [(buckets, self.attributes(key)) for key, buckets in list(self._buckets.items())]


class Instrument(NamedTuple):
    """`read` is called in another thread, when metrics are sent: it must change nothing."""

    name: str
    unit: str
    description: str
    kind: Literal["gauge", "counter"]
    read: Callable[[], Iterable[tuple[float, Attributes]]]


def observe(app: FastAPI, *instruments: Instrument | Histogram[Any]) -> None:
    """Send these as well. Use the names and units of OpenTelemetry's conventions, if any."""
    app.state.instruments = [*getattr(app.state, "instruments", []), *instruments]
