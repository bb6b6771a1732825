# Rung's file: advancing to another stage may change it.
"""Everything is sent by threads of their own. A receiver that is away or hangs costs a bounded
queue, and a few lines in the log a minute.

The library is imported only when there is somewhere to send to, for that takes 0.3 s.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

SCOPE = InstrumentationScope("app.infra")


class Sender(Protocol):
    def stop(self) -> None:
        """Send the rest."""


def resource(service_name: str) -> Resource:
    """Who sends this; OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create({"service.name": service_name})


def stop(senders: Iterable[Sender], seconds: float) -> None:
    """Within that time; what a receiver that hangs has not taken by then is lost."""
    threads = [threading.Thread(target=sender.stop, daemon=True) for sender in senders]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class OnceAMinute(logging.Filter):
    """While nobody receives, the exporters would say so at each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, what = time.monotonic(), (record.name, record.msg)
        if now - self._said.get(what, -math.inf) < 60:
            return False
        self._said[what] = now
        return True
