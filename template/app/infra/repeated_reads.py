# Rung's file: advancing to another stage may change it.
"""Estimates the hit ratio that a cache of @max_stale answers would have, before there is one."""

import time
from typing import Any

# Beyond this many keys at once, only half of the keys are counted, then a quarter, and so on.
MOST_KEYS = 4096


class RepeatedReads:
    """Samples by the hash of the key (SHARDS, FAST 2015): the share of hits stays that of all."""

    def __init__(self) -> None:
        self.reads = 0
        self.hits = 0
        self._mask = 0
        self._fresh_until: dict[int, float] = {}

    def note(self, query: object, args: Any, kwargs: Any, max_stale: float) -> None:
        try:
            key = hash((id(query), args, *kwargs.items()))
        except TypeError:  # a list among the arguments
            key = hash((id(query), repr(args), repr(kwargs)))
        if key & self._mask:
            return
        now = time.monotonic()
        self.reads += 1
        if self._fresh_until.get(key, 0.0) > now:
            self.hits += 1
        else:
            self._fresh_until[key] = now + max_stale
            if len(self._fresh_until) > MOST_KEYS:
                self._forget(now)

    def _forget(self, now: float) -> None:
        kept = {key: until for key, until in self._fresh_until.items() if until > now}
        if len(kept) > MOST_KEYS // 2:
            self._mask = self._mask * 2 + 1
            kept = {key: until for key, until in kept.items() if not key & self._mask}
        self._fresh_until = kept


repeated_reads = RepeatedReads()  # per copy: each has its own clients
