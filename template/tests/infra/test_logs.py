# Rung's file: advancing to another stage may change it.
"""Log lines of requests, of the app and of libraries."""

import errno
import io
import json
import logging.config
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from socket import socketpair
from typing import Any, Literal
from urllib.parse import quote

import pytest
import structlog
from fastapi import FastAPI
from httpx import AsyncClient
from pydantic import BaseModel
from sqlalchemy import Integer, String, Uuid, bindparam, select, text
from structlog.testing import capture_logs

from app.infra.database import ReadSession, WriteSession
from app.infra.failures import Unavailable
from app.infra.logs import LogSettings, Timestamp, configure
from app.infra.reads import Query, in_transaction
from tests.infra.conftest import Serve, bare_app

LOGS_MUCH = """
import logging, sys
import structlog
from app.infra import logs
logs.configure(logs.LogSettings(format="json"))
structlog.get_logger().info("a short line")
for _ in range(1000):
    structlog.get_logger().info("ours" * 1000)
    logging.getLogger("library").warning("a library's" * 1000)
print(logs.stdout.lost, file=sys.stderr)
"""

LOGS_IN_THREADS = """
import signal, sys, threading
import structlog
from app.infra import logs
logs.configure(logs.LogSettings(format="json"))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
def write(event, times):
    for _ in range(times):
        structlog.get_logger().info(event * 500)
def in_two_threads(event, times):
    threads = [threading.Thread(target=write, args=(event, times)) for _ in range(2)]
    for one in threads: one.start()
    for one in threads: one.join()
in_two_threads("unread", 500)
print(logs.stdout.lost, file=sys.stderr, flush=True)
signal.sigwait({signal.SIGUSR1})
in_two_threads("read", 500)
print(logs.stdout.lost, file=sys.stderr)
"""


@pytest.fixture
def app(bare: FastAPI) -> FastAPI:
    @bare.get("/notes/{note}")
    async def read(note: int) -> None:
        structlog.get_logger().info("read a note", note=note)
        logging.getLogger("some.library").warning("careful with %s", note)

    @bare.get("/broken")
    async def broken() -> None:
        password = "hunter2"
        raise RuntimeError("broken" + password[:0])

    return bare


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


async def test_a_request_is_logged_in_one_line_with_its_route_and_without_its_path(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = await client.get("/notes/7?secret=1")

    line = lines(capsys)[-1]
    assert line.pop("duration_ms") >= 0
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "route": "/notes/{note}",
        "status": 200,
        "db_calls": 0,
        "db_ms": 0.0,
        "db_wait_ms": 0.0,
        "request_id": answer.headers["x-request-id"],
    }


def test_a_line_has_the_time_in_utc_to_the_microsecond(monkeypatch: pytest.MonkeyPatch) -> None:
    stamp = Timestamp()
    for nanoseconds, shown in (
        (1_795_692_599_000_001_999, "2026-11-26T11:29:59.000001Z"),
        (1_795_692_599_999_999_999, "2026-11-26T11:29:59.999999Z"),
        (1_795_692_600_000_000_000, "2026-11-26T11:30:00.000000Z"),
    ):
        monkeypatch.setattr("app.infra.logs.time.time_ns", lambda now=nanoseconds: now)
        assert stamp(None, "info", {}) == {"timestamp": shown}


@pytest.mark.usefixtures("services")
async def test_an_unknown_path_is_logged_for_a_developer_and_not_in_production(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logged = []
    for form in ("console", "json"):
        monkeypatch.setenv("LOG_FORMAT", form)
        app = bare_app()
        configure(LogSettings())  # again, now that pytest has put its own stdout in place
        async with serve(app) as client:
            await client.get("/customers/ada@example.com")
        logged.append(capsys.readouterr().out)

    assert ["ada@example.com" in line for line in logged] == [True, False]
    assert json.loads(logged[1])["route"] is None


async def test_every_line_of_a_request_has_its_id_also_those_of_libraries(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogSettings())  # again, now that pytest has put its own stdout in place
    await client.get("/notes/7", headers={"X-Request-ID": "from-the-proxy"})

    logged = lines(capsys)
    assert [line["event"] for line in logged] == ["read a note", "careful with 7", "request"]
    assert {line["request_id"] for line in logged} == {"from-the-proxy"}


@pytest.mark.parametrize("odd", ["", "short", "x" * 129, "two words", 'a"quote-in-it', "ünsafe-id"])
async def test_a_request_id_with_odd_characters_or_length_is_replaced(
    client: AsyncClient, odd: str
) -> None:
    answer = await client.get("/notes/7", headers={b"X-Request-ID": odd.encode()})

    assert len(answer.headers["x-request-id"]) == 32


async def test_an_unexpected_error_is_logged_with_its_traceback_and_no_variables(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    await client.get("/broken")

    error, request = lines(capsys)
    assert 'raise RuntimeError("broken"' in error["exception"]
    assert "hunter2" not in json.dumps(error)
    assert (error["level"], request["status"]) == ("error", 500)


class Note(BaseModel):
    note: int


NOTES = Query(select(bindparam("note", type_=Integer).label("note")), Note)
IDS = Query(select(bindparam("note", type_=Uuid).label("note")), Note)
SECRETS = Query(select(bindparam("note", type_=String).label("note")), Note)


CONVERSIONS = (
    *("CAST({} AS integer)", "CAST({} AS timestamptz)", "CAST({} AS integer[])"),
    *("CAST({} AS jsonpath)", "CAST({} AS cidr)", "to_tsquery({})", "now() AT TIME ZONE {}"),
    "to_timestamp({}, 'YYYY')",
)


@pytest.mark.parametrize(
    "odd", ["a secret", "secret (1)\nsecret\n", "secret, input_type=str]", '"a"\nsecret']
)
async def test_an_error_of_a_library_does_not_show_the_value_that_it_refuses(
    bare: FastAPI, serve: Serve, capsys: pytest.CaptureFixture[str], odd: str
) -> None:
    @bare.get("/argument")
    async def argument(read: ReadSession) -> None:
        await read.all(NOTES, note=odd)

    @bare.get("/transaction")
    async def transaction(write: WriteSession) -> None:
        await in_transaction(write).all(NOTES, note=odd)

    @bare.get("/many")
    async def many(write: WriteSession) -> None:
        numbers = text("SELECT :note").bindparams(bindparam("note", type_=Integer))
        await write.execute(numbers, [{"note": odd}, {"note": odd}])

    @bare.get("/id")
    async def by_id(read: ReadSession) -> None:
        await read.all(IDS, note=odd)

    @bare.get("/row")
    async def row(read: ReadSession) -> None:
        await read.all(SECRETS, note=odd)

    @bare.get("/converted/{number}")
    async def converted(write: WriteSession, number: int) -> None:
        conversion = CONVERSIONS[number].format("CAST(:note AS text)")
        await write.execute(text(f"SELECT {conversion}"), {"note": odd})

    @bare.get("/answer")
    async def answer() -> list[Note]:
        return [{"note": odd}, {"text": odd}]  # type: ignore[list-item]

    conversions = [f"/converted/{number}" for number in range(len(CONVERSIONS))]
    async with serve(bare) as client:
        for path in ("/argument", "/row", "/answer", "/transaction", "/many", "/id"):
            assert (await client.get(path)).status_code == 500
        failed = [(await client.get(path)).status_code == 500 for path in conversions]
        assert sum(failed) >= len(CONVERSIONS) - 1  # one of them may take it for a time zone

    logged = [line["exception"] for line in lines(capsys) if "exception" in line]
    assert ["secret" in error for error in logged] == [False] * (6 + sum(failed)), logged
    assert "query argument $1: … ('str' object cannot be interpreted as an integer)" in logged[0]
    assert "invalid input syntax for type integer: …" in logged[6]
    assert "Input should be a valid integer" in logged[1]
    assert "'loc': ('response', 1, 'note'), 'msg': 'Field required'" in logged[2]


async def test_health_checks_are_logged_only_when_they_fail(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (await client.get("/ready")).status_code == 200
    assert (await client.get("/live")).status_code == 200

    assert lines(capsys) == []


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_log_line_that_cannot_be_written_fails_no_request(
    app: FastAPI, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    @app.get("/away")
    async def away() -> None:
        raise Unavailable("a server is away")

    monkeypatch.setattr("sys.stdout", FullDisk())
    configure(LogSettings())
    async with serve(app) as client:
        statuses = [(await client.get(path)).status_code for path in ("/notes/7", "/away")]
        broken = await client.get("/broken")

    assert [*statuses, broken.status_code] == [200, 503, 500]
    for level in ("debug", "info", "warning", "error", "critical", "exception"):
        getattr(structlog.get_logger(), level)("lost")


@pytest.mark.parametrize("open_pair", [os.pipe, lambda: [end.detach() for end in socketpair()]])
def test_a_reader_of_the_log_that_has_stopped_stops_nobody(
    open_pair: Callable[[], Sequence[int]],
) -> None:
    """A container's standard output is a pipe, and a unit of systemd has a socket."""
    unread, output = open_pair()
    command = [sys.executable, "-c", LOGS_MUCH]

    logged = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, timeout=300)

    assert int(logged.stderr) > 1800
    assert os.read(unread, 100).startswith(b'{"event":"a short line"')
    os.close(unread)
    os.close(output)


def test_lines_of_threads_stay_whole_when_the_reader_stops_and_goes_on() -> None:
    """A synchronous route, or a library that exports, logs in a thread."""
    program = subprocess.Popen(
        [sys.executable, "-c", LOGS_IN_THREADS], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert program.stdout
    assert program.stderr
    with program:
        unread = int(program.stderr.readline())
        program.send_signal(signal.SIGUSR1)
        lines = program.stdout.read().splitlines()
        [lost] = map(int, program.stderr.read().splitlines())

    assert unread > 0
    assert {line.count(b'{"event"') for line in lines} == {1}
    whole = [line for line in lines if line.startswith(b"{") and line.endswith(b"}")]
    assert len(whole) == 2 * 1000 - lost


@pytest.mark.parametrize(
    ("form", "written"), [("json", "é 한".encode()), ("console", b"\xe9 \\ud55c")]
)
def test_a_locale_that_lacks_a_character_loses_no_line(
    monkeypatch: pytest.MonkeyPatch, form: Literal["json", "console"], written: bytes
) -> None:
    bytes_ = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(bytes_, "iso-8859-9", write_through=True))
    configure(LogSettings(format=form))

    structlog.get_logger().info("é 한")

    assert written in bytes_.getvalue()


async def test_a_terminal_shows_readable_lines(
    client: AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogSettings(format="console"))
    await client.get("/notes/7")

    out = capsys.readouterr().out
    assert "read a note" in out
    assert not out.startswith("{")


@pytest.mark.parametrize("turn", ["a test", "the next test"])
def test_a_log_level_set_in_one_test_does_not_reach_the_next(turn: str) -> None:
    with capture_logs() as lines:
        structlog.get_logger().warning(turn)
    configure(LogSettings(level="ERROR"))

    assert [line["event"] for line in lines] == [turn]


def test_loggers_that_a_dict_config_has_switched_off_log_again() -> None:
    library = logging.getLogger("some.library")
    logging.config.dictConfig({"version": 1})
    assert library.disabled

    configure(LogSettings())

    assert not library.disabled


@pytest.mark.usefixtures("services")
async def test_a_terminal_obeys_no_text_of_a_client(
    serve: Serve, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_FORMAT", "console")
    clipboard = "\x1b]52;c;ZWNoby1o\x07\x9b2J"
    app = bare_app()

    @app.get("/broken")
    async def broken() -> None:
        logging.getLogger("some.library").warning(clipboard)
        raise RuntimeError(clipboard)

    configure(LogSettings())  # again, now that pytest has put its own stdout in place
    async with serve(app) as client:
        await client.get(f"/{quote(clipboard)}")
        await client.get("/broken")
    logged = capsys.readouterr().out

    assert logged.count(r"\x1b]52;c;ZWNoby1o\x07\x9b2J") == 3
    assert not re.search(r"\x1b\]|[\x07\x9b]", logged)
