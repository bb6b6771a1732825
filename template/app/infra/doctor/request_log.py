# Rung's file: advancing to another stage may change it.
"""Reads the last minutes of the app's log, from its end."""

import json
import math
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, BinaryIO

from app.infra.doctor.evidence import Process, Requests, Route
from app.infra.doctor.finding import Missing
from app.infra.doctor.looking import OWN_LIMIT

LOG = "python -m app.infra.doctor --log FILE, or --log - after a pipe such as docker logs"
BLOCK = 1 << 20
MOST_BYTES = 48 << 20
# Process lines come once a minute.
FEWEST_SECONDS = 150.0
# Concurrent requests log a little out of order. A larger step means that the clock was set back.
OUT_OF_ORDER_SECONDS = 5.0
PROCESS = b'"process"'
# Logged only when they fail. A busy database fails them while it answers each request.
PROBES = ("/live", "/ready")
NO_CONNECTION = ("connection slots", "too many clients")

type Line = dict[str, Any]


def read(place: Path | BinaryIO, seconds: float) -> tuple[Requests | None, Process | None]:
    """Reads the last `seconds` before the last line. Raises Missing."""
    try:
        if isinstance(place, Path):
            with place.open("rb") as file:
                blocks = _from_the_end(file) if file.seekable() else _tail(file)
                return _judge(_lines(blocks), seconds)
        return _judge(_lines(_tail(place)), seconds)
    except OSError as error:
        why = error.strerror or str(error)
        raise Missing(f"The log cannot be read: {why}", LOG) from error


def _tail(stream: BinaryIO) -> Iterator[bytes]:
    """The last blocks of a pipe, the last one first."""
    kept: deque[bytes] = deque()
    size = 0
    while block := stream.read(BLOCK):
        kept.append(block)
        size += len(block)
        while size - len(kept[0]) >= MOST_BYTES:
            size -= len(kept.popleft())
    while kept:
        yield kept.pop()


def _from_the_end(file: BinaryIO) -> Iterator[bytes]:
    """The last blocks of a file, the last one first."""
    at = file.seek(0, 2)
    end = max(at - MOST_BYTES, 0)
    while at > end:
        size = min(BLOCK, at)
        at -= size
        file.seek(at)
        yield file.read(size)


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The newest line first. The oldest may be half a line, which is not JSON."""
    rest = b""
    for block in blocks:
        first, *lines = (block + rest).split(b"\n")
        yield from reversed(lines)
        rest = first if len(first) < BLOCK else b""  # no line of a log is that long
    yield rest


class _Clock:
    """The age of each line, in seconds before the last line. Lines come newest first, and somebody
    may have set the machine's clock in between."""

    def __init__(self) -> None:
        self._oldest: float | None = None  # the earliest time so far, by the newest clock
        self._set_by = 0.0  # added to the times from before the clock was set
        self._age = 0.0

    def age(self, at: float) -> float:
        if self._oldest is None:
            self._oldest = at
        if abs(at - self._oldest) < abs(at + self._set_by - self._oldest):
            self._set_by = 0.0
        at += self._set_by
        if at > self._oldest + OUT_OF_ORDER_SECONDS:
            self._set_by -= at - self._oldest
            at = self._oldest
        self._age += max(self._oldest - at, 0.0)
        self._oldest = min(self._oldest, at)
        return self._age


def _judge(lines: Iterable[bytes], seconds: float) -> tuple[Requests | None, Process | None]:
    clock = _Clock()
    requests = _Requests()
    processes: list[Line] = []
    known = False
    age = 0.0
    for raw in lines:
        if age > seconds and PROCESS not in raw:
            continue  # not parsed, because these are most lines of a busy log
        line = _parsed(raw)
        if line is None:
            continue
        known = True
        age = clock.age(line["at"])
        if age > max(seconds, FEWEST_SECONDS):
            break
        if line.get("event") == "process":
            processes.append(line)
        if age > seconds:
            continue
        requests.add(line, raw, age)
    if not known:
        raise Missing(
            "The log has no JSON lines of this app. Set LOG_FORMAT=json, or give the lines as the"
            " app wrote them: docker logs, journalctl -o cat, zcat",
            LOG,
        )
    return requests.seen(), _process(processes)


def _parsed(raw: bytes) -> Line | None:
    """Ignores any prefix that a collector adds, such as {app="shop"}, and other programs' lines."""
    begin = raw.find(b'{"')
    if begin < 0 or b'"timestamp"' not in raw or b'"event"' not in raw:
        return None
    try:
        line = json.loads(raw[begin:])
        return {**line, "at": datetime.fromisoformat(line["timestamp"]).timestamp()}
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


def _number(line: Line, name: str) -> float:
    value = line.get(name)
    try:
        number = float(value) if isinstance(value, int | float) else 0.0
    except OverflowError:
        return 0.0
    return number if math.isfinite(number) else 0.0


class _Requests:
    """Numbers only: the lines of a busy hour do not fit into memory."""

    def __init__(self) -> None:
        self._seconds = 0.0
        self._refused = self._limited = self._errors = 0
        self._is_counted = False
        self._db_ms = self._wait_ms = 0.0
        self._routes: dict[str, tuple[array[float], array[float]]] = {}

    def add(self, line: Line, raw: bytes, age: float) -> None:
        self._seconds = age
        if line.get("event") != "request":
            text = raw.decode(errors="replace")
            self._refused += any(sign in text for sign in NO_CONNECTION)
            self._limited += OWN_LIMIT in text
        elif line.get("route") not in PROBES:
            self._add_request(line)

    def _add_request(self, line: Line) -> None:
        name = f"{line.get('method')} {line.get('route')}".encode(errors="replace").decode()
        durations, calls = self._routes.setdefault(name, (array("d"), array("d")))
        durations.append(_number(line, "duration_ms"))
        calls.append(_number(line, "db_calls"))
        self._errors += _number(line, "status") >= 500
        self._is_counted |= "db_calls" in line
        self._db_ms += _number(line, "db_ms")
        self._wait_ms += _number(line, "db_wait_ms")

    def seen(self) -> Requests | None:
        if not (self._routes or self._refused or self._limited):
            return None
        routes = [
            Route(
                route=name[:200],
                requests=len(durations),
                total_ms=sum(durations),
                p95_ms=_p95(durations),
                median_calls=median(calls) if self._is_counted else None,
            )
            for name, (durations, calls) in self._routes.items()
        ]
        routes.sort(key=lambda route: -route.total_ms)
        every = array("d")
        for durations, _ in self._routes.values():
            every.extend(durations)
        return Requests(
            count=len(every),
            seconds=self._seconds,
            p95_ms=_p95(every),
            errors=self._errors,
            total_ms=sum(every),
            db_ms=self._db_ms if self._is_counted else None,
            wait_ms=self._wait_ms if self._is_counted else None,
            refused=self._refused,
            limited=self._limited,
            routes=routes[:20],
        )


def _p95(durations: array[float]) -> float:
    return sorted(durations)[int(0.95 * (len(durations) - 1))] if durations else 0.0


def _process(lines: list[Line]) -> Process | None:
    if not lines:
        return None
    wanted = [_number(line, "cpu_wanted") for line in lines if line.get("cpu_wanted") is not None]
    return Process(
        lines=len(lines),
        got=fmean(_number(line, "cpu_got") for line in lines),
        wanted=fmean(wanted) if wanted else None,
        loop_p90_ms=median(_number(line, "loop_p90_ms") for line in lines),
        waiting_lines=fmean(_has_waiters(line) for line in lines),
        stale_reads=int(sum(_number(line, "stale_reads") for line in lines)),
        stale_repeats=int(sum(_number(line, "stale_repeats") for line in lines)),
    )


def _has_waiters(line: Line) -> bool:
    pools = line.get("pools")
    return isinstance(pools, dict) and any(
        isinstance(pool, dict) and _number(pool, "waiting") >= 0.1 for pool in pools.values()
    )
