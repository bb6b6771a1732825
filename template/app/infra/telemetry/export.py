# Rung's file: advancing to another stage may change it.
"""Sends telemetry in threads. A receiver that is away costs only a bounded queue and log lines."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable


def stop(senders: Iterable[Callable[[], None]], seconds: float) -> None:
    """Let each send the rest. Data that a hung receiver has not taken after `seconds` is lost."""
    threads = [threading.Thread(target=send_the_rest, daemon=True) for send_the_rest in senders]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class OnceAMinute(logging.Filter):
    """While the receiver is away, an exporter would log each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = time.monotonic(), (record.name, record.msg)
        if now - self._logged.get(message, -math.inf) < 60:
            return False
        self._logged[message] = now
        return True
