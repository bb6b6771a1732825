# Rung's file: advancing to another stage may change it.
"""`make load` says what went wrong."""

import re
import resource
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from dev import load, ports, postgres

# The tests do not install Locust. This program writes the files of `locust --csv --html`.
LOCUST = """#!{python}
import sys
stats = sys.argv[sys.argv.index("--csv") + 1] + "_stats.csv"
with open(stats, "w") as file:
    print("Type,Name,Request Count,Failure Count", file=file)
    print(",Aggregated,{requests},{failures}", file=file)
if {status} != 2:
    open(sys.argv[sys.argv.index("--html") + 1], "w").write("the curve")
sys.exit({status})
"""


@pytest.mark.parametrize("host", ["http://127.0.0.1:{unused}", "127.0.0.1", "http://127.0.0.1:x"])
def test_a_host_that_does_not_answer_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    host = host.format(unused=ports.unused())
    monkeypatch.setenv("HOST", host)
    monkeypatch.setenv("USERS", "1")
    monkeypatch.setenv("DURATION", "1s")

    with pytest.raises(SystemExit, match=f"Nothing answers at HOST={host}: "):
        load.main()


@pytest.mark.parametrize(
    ("users", "duration", "said"),
    [
        ("x", "30s", "USERS=x is not a number of users. Write USERS=20."),
        ("0", "30s", "USERS=0 is not"),
        ("-1", "30s", "USERS=-1 is not"),
        ("20", "x", "DURATION=x is not a time. Write DURATION=30s"),
        ("20", "30 s", "DURATION=30 s is not"),
        ("20", "", "DURATION= is not"),
    ],
)
def test_a_wrong_size_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, users: str, duration: str, said: str
) -> None:
    monkeypatch.delenv("HOST", raising=False)
    monkeypatch.delattr(postgres, "for_load")
    monkeypatch.setenv("USERS", users)
    monkeypatch.setenv("DURATION", duration)

    with pytest.raises(SystemExit, match=re.escape(said)):
        load.main()


@pytest.mark.parametrize("duration", ["20", "30s", "2m", "1h", "1h30m", "3h30m10s"])
def test_each_duration_that_locust_accepts_is_accepted(duration: str) -> None:
    load.refuse_wrong_size("20", duration)


@pytest.mark.parametrize(
    ("requests", "failures", "status", "exit_status"),
    [(7, 0, 0, 0), (7, 1, 1, 1), (0, 0, 0, 1), (7, 7, 1, 1), (0, 0, 2, 2)],
)
def test_a_load_test_without_an_answered_request_fails_with_a_reason(
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    requests: int,
    failures: int,
    status: int,
    exit_status: int,
) -> None:
    locust = tmp_path / "locust"
    locust.write_text(
        LOCUST.format(python=sys.executable, requests=requests, failures=failures, status=status)
    )
    locust.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("USERS", "1")
    monkeypatch.setenv("DURATION", "1s")
    report = tmp_path / ".dev" / "load.html"
    monkeypatch.setattr(load, "REPORT", report)
    report.parent.mkdir()
    report.write_text("of the run before")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.handle_request).start()
        monkeypatch.setenv("HOST", f"http://127.0.0.1:{server.server_port}")

        with pytest.raises(SystemExit) as ended:
            load.main()

    assert ended.value.code == exit_status
    said = capfd.readouterr()
    assert ("No request was served" in said.err) == (requests == failures)
    assert (str(report) in said.out) == report.exists() == (status != 2)


def test_the_server_may_open_more_files_than_a_terminal_of_macos_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        load.allow_many_connections()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert hard == before[1]
    assert soft in {load.FILES, hard}


def test_a_missing_locust_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(load, "REPORT", tmp_path / "load.html")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("USERS", "1")
    monkeypatch.setenv("DURATION", "1s")
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.handle_request).start()
        monkeypatch.setenv("HOST", f"http://127.0.0.1:{server.server_port}")

        with pytest.raises(SystemExit, match="Cannot run locust: No such file or directory"):
            load.main()
