# Rung's file: advancing to another stage may change it.
"""The end of the app's log, as the doctor reads it."""

import io
import json
import resource
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.infra.doctor import request_log
from app.infra.doctor.request_log import LogUnreadable

BEGIN = datetime(2026, 11, 25, 20, 0, tzinfo=UTC)


def line(second: float, event: str = "request", **fields: Any) -> str:
    at = (BEGIN + timedelta(seconds=second)).isoformat().replace("+00:00", "Z")
    return json.dumps({"event": event, "timestamp": at, **fields})


def request(second: float, **fields: Any) -> str:
    given: dict[str, Any] = {"method": "GET", "route": "/a", "status": 200, "duration_ms": 10.0}
    return line(second, **(given | {"db_calls": 2, "db_ms": 4.0, "db_wait_ms": 1.0} | fields))


def process(second: float, **fields: Any) -> str:
    given: dict[str, Any] = {
        "cpu_got": 0.5,
        "cpu_wanted": 0.6,
        "loop_p90_ms": 2.0,
        "stale_reads": 10,
    }
    pools = {"reads": {"max": 2, "used": 2, "waiting": 0.5}}
    return line(second, "process", **(given | {"stale_repeats": 5, "pools": pools} | fields))


def written(folder: Path, lines: list[str]) -> Path:
    file = folder / "app.log"
    file.write_text("\n".join(lines) + "\n")
    return file


def test_only_the_window_before_the_last_line_counts(tmp_path: Path) -> None:
    old = [request(second, status=500) for second in range(100)]
    new = [request(200 + second, duration_ms=20.0) for second in range(30)]

    requests, _ = request_log.read(written(tmp_path, old + new), 40)

    assert requests is not None
    assert (requests.count, requests.errors, requests.p95_ms) == (30, 0, 20.0)
    assert (requests.db_ms, requests.wait_ms, requests.seconds) == (120.0, 30.0, 29.0)
    assert requests.routes[0].route == "GET /a"
    assert requests.routes[0].median_calls == 2


def test_process_lines_come_once_a_minute_so_more_of_the_log_counts(tmp_path: Path) -> None:
    lines = [process(0, cpu_got=0.3), process(60), request(100), process(120, cpu_wanted=None)]

    _, found = request_log.read(written(tmp_path, lines), 10)

    assert found is not None
    assert (found.lines, found.wanted, found.waiting_lines) == (3, 0.6, 1.0)
    assert (found.stale_reads, found.stale_repeats) == (30, 15)


def test_what_a_collector_puts_before_a_line_is_left_out() -> None:
    lines = [f"2026-11-25T20:00:00Z app-1 {request(second)}" for second in range(3)]
    pipe = io.BytesIO("\n".join(["Starting …", *lines]).encode())

    requests, _ = request_log.read(pipe, 10)

    assert requests is not None
    assert requests.count == 3


def test_an_older_apps_lines_say_nothing_about_statements(tmp_path: Path) -> None:
    old = line(1, method="GET", route="/a", status=200, duration_ms=10.0)

    requests, found = request_log.read(written(tmp_path, [old]), 10)

    assert requests is not None
    assert (requests.db_ms, requests.routes[0].median_calls, found) == (None, None, None)


def test_lines_that_say_that_postgres_is_full_are_counted(tmp_path: Path) -> None:
    full = line(1, "unavailable", reason="remaining connection slots are reserved")

    requests, _ = request_log.read(written(tmp_path, [full, request(2)]), 10)

    assert requests is not None
    assert requests.refused == 1


def test_a_clock_that_jumps_back_and_odd_values_do_no_harm(tmp_path: Path) -> None:
    odd = [
        request(50),
        request(9_999),
        request(51, duration_ms="soon", status=None, db_calls=[]),
        line(52, "process", pools=7, cpu_wanted="all"),
        request(53),
        "{",
        '{"timestamp": 7}',
        '["timestamp"]',
    ]

    requests, _ = request_log.read(written(tmp_path, odd), 10)

    assert requests is not None
    assert requests.count == 4


@pytest.mark.parametrize("content", ["", "hello\n" * 3000, "[1]\n", "\0\xff\n"])
def test_a_log_that_is_not_json_is_refused_in_words(tmp_path: Path, content: str) -> None:
    with pytest.raises(LogUnreadable, match="LOG_FORMAT=json"):
        request_log.read(written(tmp_path, [content]), 10)


def test_a_log_that_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    with pytest.raises(LogUnreadable, match="cannot be read"):
        request_log.read(tmp_path / "nowhere", 10)


@pytest.mark.slow
def test_of_a_huge_log_only_the_end_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.log"
    end = "\n".join(request(1_000_000 + n / 1000) for n in range(200_000)) + "\n"
    with file.open("w") as log:
        log.truncate(1 << 30)  # sparse: no disk is used
        log.seek(1 << 30)
        log.write(end)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()

    requests, _ = request_log.read(file, 30)

    assert requests is not None
    assert 29_000 < requests.count < 31_000
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10
