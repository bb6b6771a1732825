# Rung's file: advancing to another stage may change it.
"""The last minutes of the app's log, read from its end."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from statistics import fmean, median
from typing import Any, BinaryIO

from app.infra.doctor.evidence import Process, Requests, Route

BLOCK = 1 << 20
MOST_BYTES = 48 << 20
# Process lines come once a minute.
FEWEST_SECONDS = 150.0
NO_CONNECTION = ("connection slots", "too many clients")

type Line = dict[str, Any]


class LogUnreadable(Exception):
    """Says why, and what to do."""


def read(place: Path | BinaryIO, seconds: float) -> tuple[Requests | None, Process | None]:
    """Of the last `seconds` before the last line. Raises LogUnreadable."""
    try:
        if isinstance(place, Path):
            with place.open("rb") as file:
                return _judge(_from_the_end(file), seconds)
        return _judge(reversed(_tail(place)), seconds)
    except OSError as error:
        raise LogUnreadable(f"The log cannot be read: {error}") from error


def _tail(stream: BinaryIO) -> list[bytes]:
    kept = b""
    while block := stream.read(BLOCK):
        kept += block
        if len(kept) > 2 * MOST_BYTES:
            kept = kept[-MOST_BYTES:]
    return kept[-MOST_BYTES:].splitlines()


def _from_the_end(file: BinaryIO) -> Iterator[bytes]:
    """Lines, the last one first."""
    at = file.seek(0, 2)
    most, rest = MOST_BYTES, b""
    while at > 0 and most > 0:
        size = min(BLOCK, at)
        at, most = at - size, most - size
        file.seek(at)
        first, *lines = (file.read(size) + rest).split(b"\n")
        yield from reversed(lines)
        rest = first if len(first) < BLOCK else b""  # no line of a log is that long
    if at == 0:
        yield rest


def _judge(lines: Iterable[bytes], seconds: float) -> tuple[Requests | None, Process | None]:
    last: float | None = None
    first = 0.0
    requests: list[Line] = []
    processes: list[Line] = []
    refused = strangers = known = 0
    for raw in lines:
        line = _parsed(raw)
        if line is None:
            strangers += bool(raw.strip())
            if not known and strangers > 1000:
                break
            continue
        known += 1
        at = line["at"]
        # A clock may jump: lines that claim to be younger than the last one count as its time.
        last = at if last is None else last
        if last - at > max(seconds, FEWEST_SECONDS):
            break
        if line.get("event") == "process":
            processes.append(line)
        if last - at > seconds:
            continue
        first = min(first or at, at)
        if line.get("event") == "request":
            requests.append(line)
        elif any(sign in raw.decode(errors="replace") for sign in NO_CONNECTION):
            refused += 1
    if last is None:
        raise LogUnreadable(
            "The log has no JSON lines of this app. Set LOG_FORMAT=json, or name another file."
        )
    return _requests(requests, max(last - first, 0.0), refused), _process(processes)


def _parsed(raw: bytes) -> Line | None:
    """Ignores any prefix that a collector adds to the line."""
    begin = raw.find(b"{")
    if begin < 0 or b'"timestamp"' not in raw:
        return None
    try:
        line = json.loads(raw[begin:])
        return {**line, "at": datetime.fromisoformat(line["timestamp"]).timestamp()}
    except (ValueError, TypeError, KeyError):
        return None


def _number(line: Line, name: str) -> float:
    value = line.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _requests(lines: list[Line], seconds: float, refused: int) -> Requests | None:
    if not lines and not refused:
        return None
    routes = defaultdict(list)
    for line in lines:
        routes[f"{line.get('method')} {line.get('route')}"].append(line)
    is_counted = any("db_calls" in line for line in lines)
    found = [
        Route(
            route=name,
            requests=len(own),
            total_ms=sum(_number(line, "duration_ms") for line in own),
            p95_ms=_p95(own),
            median_calls=median(_number(line, "db_calls") for line in own) if is_counted else None,
        )
        for name, own in routes.items()
    ]
    found.sort(key=lambda route: -route.total_ms)
    return Requests(
        count=len(lines),
        seconds=seconds,
        p95_ms=_p95(lines),
        errors=sum(_number(line, "status") >= 500 for line in lines),
        total_ms=sum(_number(line, "duration_ms") for line in lines),
        db_ms=sum(_number(line, "db_ms") for line in lines) if is_counted else None,
        wait_ms=sum(_number(line, "db_wait_ms") for line in lines) if is_counted else None,
        refused=refused,
        routes=found[:20],
    )


def _p95(lines: list[Line]) -> float:
    durations = sorted(_number(line, "duration_ms") for line in lines)
    return durations[int(0.95 * (len(durations) - 1))] if durations else 0.0


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
