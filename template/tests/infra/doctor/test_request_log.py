# Rung's file: advancing to another stage may change it.
"""The end of the app's log, as the doctor reads it."""

import io
import json
import resource
import sys
import time
import tracemalloc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.infra.doctor import request_log
from app.infra.doctor.finding import Missing

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


def test_a_failed_health_check_does_not_count_as_a_failed_request(tmp_path: Path) -> None:
    lines = [request(0), request(1, route="/ready", status=503, duration_ms=1000.0)]

    requests, _ = request_log.read(written(tmp_path, lines), 10)

    assert requests is not None
    assert (requests.count, requests.errors, requests.p95_ms) == (1, 0, 10.0)


def test_process_lines_come_once_a_minute_so_more_of_the_log_counts(tmp_path: Path) -> None:
    lines = [process(0, cpu_got=0.3), process(60), request(100), process(120, cpu_wanted=None)]

    _, found = request_log.read(written(tmp_path, lines), 10)

    assert found is not None
    assert (found.lines, found.wanted, found.waiting_lines) == (3, 0.6, 1.0)
    assert (found.stale_reads, found.stale_repeats) == (30, 15)


@pytest.mark.parametrize("prefix", ["app-1", '{app="shop"}', "{}"])
def test_a_prefix_that_a_collector_adds_to_a_line_is_ignored(prefix: str) -> None:
    lines = [f"2026-11-25T20:00:00Z {prefix} {request(second)}" for second in range(3)]
    pipe = io.BytesIO("\n".join(["Starting …", *lines]).encode())

    requests, _ = request_log.read(pipe, 10)

    assert requests is not None
    assert requests.count == 3


def test_the_lines_of_other_programs_do_not_count(tmp_path: Path) -> None:
    """Their clocks show another time, and thousands of them may come last."""
    days_ago = json.dumps({"timestamp": "2026-11-20T20:00:00Z", "message": "backup"})
    own = [text for second in range(30) for text in (request(second), days_ago)]

    requests, _ = request_log.read(written(tmp_path, [*own, *["GET / 200"] * 3000]), 60)

    assert requests is not None
    assert requests.count == 30


def test_lines_of_an_older_app_without_statement_counts_are_accepted(tmp_path: Path) -> None:
    old = line(1, method="GET", route="/a", status=200, duration_ms=10.0)

    requests, found = request_log.read(written(tmp_path, [old]), 10)

    assert requests is not None
    assert (requests.db_ms, requests.routes[0].median_calls, found) == (None, None, None)


def test_lines_that_say_that_postgres_is_full_are_counted(tmp_path: Path) -> None:
    full = line(1, "unavailable", reason="remaining connection slots are reserved")

    requests, _ = request_log.read(written(tmp_path, [full, request(2)]), 10)

    assert requests is not None
    assert requests.refused == 1


def test_lines_that_say_that_the_role_has_a_limit_are_counted(tmp_path: Path) -> None:
    full = line(1, "unavailable", reason='too many connections for role "shop"')

    requests, _ = request_log.read(written(tmp_path, [full]), 10)

    assert requests is not None
    assert (requests.refused, requests.limited) == (0, 1)


def test_a_clock_that_jumps_back_and_odd_values_are_tolerated(tmp_path: Path) -> None:
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


def test_a_clock_that_was_set_back_does_not_lengthen_the_window(tmp_path: Path) -> None:
    hour = 3600
    before = [request(hour + second, status=500) for second in range(100)]
    after = [request(second) for second in range(10)]

    requests, _ = request_log.read(written(tmp_path, before + after), 30)

    assert requests is not None
    assert requests.seconds == 30
    assert requests.count == 10 + 22


def test_the_window_begins_where_the_clock_was_set_forward(tmp_path: Path) -> None:
    hour = 3600
    before = [request(second, status=500) for second in range(100)]
    after = [request(hour + second) for second in range(10)]

    requests, _ = request_log.read(written(tmp_path, before + after), 30)

    assert requests is not None
    assert (requests.count, requests.seconds, requests.errors) == (10, 9, 0)


def test_impossible_numbers_count_as_missing(tmp_path: Path) -> None:
    huge = "9" * 400
    odd = [
        request(1).replace("10.0", huge).replace("4.0", "1e999"),
        request(2, db_wait_ms=float("nan")),
        '{"event": "request", "timestamp": "0001-01-01T00:00:00"}',
        '{"timestamp": ' + "[" * 50_000,
        process(3).replace("0.5", huge),
        request(3, route="\ud800"),
    ]

    requests, found = request_log.read(written(tmp_path, odd), 10)

    assert requests is not None
    assert (requests.count, requests.total_ms, requests.db_ms, requests.wait_ms) == (3, 20, 8, 2)
    assert requests.model_dump_json()
    assert found is not None


@pytest.mark.parametrize("content", ["", "hello\n" * 3000, "[1]\n", "\0\xff\n"])
def test_a_log_that_is_not_json_is_refused_with_a_reason(tmp_path: Path, content: str) -> None:
    with pytest.raises(Missing, match="LOG_FORMAT=json"):
        request_log.read(written(tmp_path, [content]), 10)


def test_a_missing_log_is_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(Missing, match="cannot be read"):
        request_log.read(tmp_path / "nowhere", 10)


class _Pipe(io.BytesIO):
    """A 32nd of a gibibyte, then lines of one window."""

    def __init__(self) -> None:
        super().__init__()
        lines = "\n".join(request(n / 1000) for n in range(10_000))
        self._blocks = [b"\n" * (1 << 20)] * 32 + [lines.encode()]

    def read(self, _: int | None = -1, /) -> bytes:
        return self._blocks.pop(0) if self._blocks else b""


def test_a_huge_pipe_is_read_with_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 32nd of 1 GiB and of 100 MiB."""
    monkeypatch.setattr(request_log, "MOST_BYTES", 3 << 19)
    monkeypatch.setattr(request_log, "BLOCK", 1 << 17)
    pipe = _Pipe()
    tracemalloc.start()
    try:
        requests, _ = request_log.read(pipe, 3600)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert requests is not None
    assert requests.count > 5_000
    assert most < (100 << 20) / 32


@pytest.mark.slow
def test_only_the_end_of_a_huge_log_is_read(tmp_path: Path) -> None:
    file = tmp_path / "huge.log"
    end = "\n".join(request(1_000_000 + n / 1000) for n in range(200_000)) + "\n"
    with file.open("w") as log:
        log.truncate(1 << 30)  # sparse: no disk is used
        log.seek(1 << 30)
        log.write(end)
    before = most_memory()
    began = time.process_time()

    requests, _ = request_log.read(file, 30)

    assert requests is not None
    assert 29_000 < requests.count < 31_000
    assert time.process_time() - began < 10
    assert most_memory() - before < 100 << 20


def most_memory() -> int:
    """Bytes. macOS counts bytes, Linux KiB."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10
