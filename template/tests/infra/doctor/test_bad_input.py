# Rung's file: advancing to another stage may change it.
"""Mistakes around the doctor's command end in one line, no traceback and the right exit code."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import structlog

from app.infra.doctor import __main__ as command
from app.infra.doctor.evidence import Evidence, Skipped
from tests.infra.conftest import run_python

HERE = Path.cwd()
NOWHERE = "postgresql://app:x@127.0.0.1:1/app"


class Ended(NamedTuple):
    code: int | str | None
    out: str
    err: str


type Doctor = Callable[..., Ended]


@pytest.fixture
def doctor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Doctor]:
    """Returns a function that runs the command in an empty folder, without measuring."""
    monkeypatch.chdir(tmp_path)
    configured = structlog.get_config()

    def run(*options: str | Path) -> Ended:
        monkeypatch.setattr(sys, "argv", ["doctor", *map(str, options)])
        code: int | str | None = 0
        try:
            command.main()
        except SystemExit as ended:
            code = ended.code
        return Ended(code, *capsys.readouterr())

    yield run
    structlog.configure(**configured)


def seen(**changes: Any) -> dict[str, Any]:
    found = Evidence(stage=1, at=datetime.now(UTC), window_s=1).model_dump(mode="json")
    return {**found, **changes}


def kept(content: object, folder: Path = Path()) -> Path:
    file = folder / "evidence.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--seconds", "nan"], "not a number of seconds"),
        (["--seconds", "0"], "not a number of seconds"),
        (["--database-cpus", "2.5"], "not a number of processors"),
        (["--url", "app.example"], "does not begin with http"),
        (["--watch", "--log", "-"], "Name a file: --log FILE"),
        (["--watch", "--from", "kept.json"], "judges a file"),
        (["--evidence", "nowhere/kept.json"], "there is no folder nowhere"),
        (["--html", "nowhere/page.html"], "there is no folder nowhere"),
        (["--frob", "1"], "unrecognized arguments: --frob 1. All options: --help"),
        (["--seconds"], "expected one argument"),
    ],
)
def test_wrong_usage_is_refused_before_the_doctor_measures(
    doctor: Doctor, options: list[str], reason: str
) -> None:
    code, out, err = doctor(*options)

    assert (code, out, err.count("\n")) == (2, "", 1)
    assert reason in err


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "no evidence of rung doctor"),
        ('{"kind": "else"}', "no evidence of rung doctor"),
        ('{"kind": "rung doctor", "version": 1}', "stage"),
        (seen(version=2), "has version 2, and this doctor reads 1: rung upgrade"),
        (seen(version="new"), "version"),
        (seen(stage=5), "stage"),
        (seen(window_s=float("inf")), "window_s"),
        (seen(service="\ud800"), "is not JSON"),
        (seen(capabilities=[]), "capabilities"),
        (" " * (17 << 20), "larger than any evidence"),
    ],
)
def test_a_file_that_is_not_our_evidence_is_refused_in_one_line(
    doctor: Doctor, content: object, reason: str
) -> None:
    code, out, err = doctor("--from", kept(content))

    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert reason in line


@pytest.mark.parametrize(
    "why",
    [
        "Error 111 connecting to cache.internal:6379. Connection refused.",
        "[Errno 111] Connect call failed ('10.0.0.3', 5432)",
        'no pg_hba.conf entry for host "fd00::1:2", user "app"',
    ],
)
def test_evidence_names_no_address(why: str) -> None:
    found = Skipped(source="the cache", why=why, remedy="bring it").why

    assert "its address" in found
    assert not {"cache.internal", "10.0.0.3", "fd00"} & set(re.split(r"[^\w.]+", found))
    assert "10" not in found


@pytest.mark.parametrize("place", ["nowhere.json", "."])
def test_evidence_that_cannot_be_read_is_refused_in_one_line(doctor: Doctor, place: str) -> None:
    code, _, err = doctor("--from", place)

    assert code == 2
    [line] = err.splitlines()
    assert "cannot be read" in line


def test_control_characters_in_evidence_never_reach_the_terminal(doctor: Doctor) -> None:
    skipped = [{"source": "\x1b[2J", "why": "a\nb\u202e", "remedy": "\x07"}]

    _, out, _ = doctor("--from", kept(seen(skipped=skipped, service="\x1b[2J")))
    _, table, _ = doctor("--from", kept(seen(service="\x1b[2J\n")), Path("evidence.json"))

    assert [one for one in out + table if not one.isprintable() and one != "\n"] == []
    assert len(table.splitlines()) == 3


def test_a_terminal_that_is_not_utf8_gets_an_answer() -> None:
    file = kept(seen(service="Süß", unavailable=["茶館"]))
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONPATH": str(HERE)}

    done = run_python("-m", "app.infra.doctor", "--from", str(file), cwd=Path(), env=environment)

    assert "cannot reach ??" in done.stdout


def looked(*options: str, **given: Any) -> subprocess.CompletedProcess[str]:
    """Runs the doctor without Postgres, app or a folder that it may write to."""
    look = ("-m", "app.infra.doctor", "--seconds", "1", "--url", "http://127.0.0.1:1")
    environment = {"DATABASE_URL": NOWHERE, "PYTHONPATH": str(HERE)}
    return run_python(*look, *options, env=environment, **given)


LOWERED = """
import os, runpy, sys
expected = min(os.nice(0) + 10, 19)  # these tests may have a low priority themselves
sys.argv = ["doctor", "--help"]
try:
    runpy.run_module("app.infra.doctor", run_name="__main__")
finally:
    print("lowered:", os.nice(0) == expected)
"""


def test_the_doctor_lowers_its_own_priority() -> None:
    assert "lowered: True" in run_python("-c", LOWERED).stdout


def test_a_missing_postgres_and_a_missing_log_get_one_line_each(tmp_path: Path) -> None:
    (tmp_path / ".dev" / "doctor.json").mkdir(parents=True)
    (tmp_path / "app.log").write_text("GET / 200\n" * 3)

    shown = looked("--log", "app.log", cwd=tmp_path)

    assert shown.returncode == 3
    assert [line.split(":")[0] for line in shown.stdout.splitlines() if "Skipped" in line] == [
        "  Skipped  sessions",
        "  Skipped  /ready",
        "  Skipped  requests",
    ]
    assert "make psql" in shown.stdout
    assert "127.0.0.1" not in shown.stdout.partition("To add it")[0]
    assert "LOG_FORMAT=json" in shown.stdout
    # The verdict is shown although it cannot be kept.
    [line] = shown.stderr.splitlines()
    assert "rung advance will not know" in line


def test_a_log_may_be_a_pipe() -> None:
    line = {"event": "request", "timestamp": "2026-11-25T20:00:00Z", "method": "GET", "route": "/"}
    reading, writing = os.pipe()
    os.write(writing, f"{json.dumps(line)}\n".encode())
    os.close(writing)

    try:
        shown = looked("--json", "--log", f"/dev/fd/{reading}", pass_fds=(reading,), cwd=HERE)
    finally:
        os.close(reading)

    whys = [one["why"] for one in json.loads(shown.stdout)["skipped"]]
    assert "the log has no request lines with db_calls" in whys


def test_a_wrong_setting_is_wrong_usage(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "mysql://app:secret@db/app")

    code, out, err = doctor("--seconds", "1")

    assert (code, out) == (2, "")
    assert "DATABASE_URL" in err
    assert "secret" not in err


@pytest.mark.parametrize("option", ["--evidence", "--html"])
def test_a_file_that_cannot_be_written_is_reported_in_one_line(doctor: Doctor, option: str) -> None:
    code, out, err = doctor("--from", kept(seen()), option, ".")

    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert "cannot be written" in line


needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has it")


@needs_dev_full
def test_full_files_are_named_and_are_no_verdict(doctor: Doctor) -> None:
    code, out, err = doctor("--from", kept(seen()), "--evidence", "/dev/full")

    assert (code, out) == (2, "")
    assert err == "/dev/full cannot be written: No space left on device.\n"


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        pytest.param(
            "/dev/full",
            2,
            "The verdict cannot be written: No space left on device.\n",
            marks=needs_dev_full,
        ),
        ("| true", 3, ""),  # as for `head`, which reads no more
    ],
)
def test_a_verdict_that_cannot_be_shown_leaves_no_traceback(
    place: str, code: int, said: str, tmp_path: Path
) -> None:
    if place.startswith("|"):
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(place, os.O_WRONLY)

    try:
        shown = subprocess.run(
            [sys.executable, "-m", "app.infra.doctor", "--from", kept(seen(), tmp_path)],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        os.close(writing)

    assert (shown.returncode, shown.stderr) == (code, said)
