# Rung's file: advancing to another stage may change it.
"""Traces, sent to a real receiver of OTLP. All have arrived when the app has stopped."""

import json
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from fastapi import BackgroundTasks, FastAPI, HTTPException
from opentelemetry import trace
from opentelemetry.trace import TraceFlags
from sqlalchemy import String, bindparam, select, text

from app.infra.database import ReadSession, WriteSession
from app.infra.logs import LogSettings, configure
from app.infra.reads import Query, in_transaction
from app.infra.telemetry import tracing
from tests.infra.conftest import Serve, bare_app, run_python
from tests.infra.telemetry.otlp import Receiver

pytestmark = pytest.mark.usefixtures("services")

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-"
EMAILS = Query(select(bindparam("email", type_=String).label("email")))
SAMPLED, NOT_SAMPLED = f"{CALLER}01", f"{CALLER}00"


@pytest.fixture
def receiver(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    """Gets every trace, unless a test sets another sampler."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "shop")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "1")
    monkeypatch.setenv("TRACES_SLOW_SECONDS", "60")  # a busy machine answers sooner
    return receiver


@pytest.fixture
def no_request_is_sampled(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0")


def shop() -> FastAPI:
    """Uses the environment as it is."""
    app = bare_app()

    @app.get("/customers/{email}")
    async def customer(email: str, read: ReadSession) -> None:
        await read.fetch("SELECT $1::text AS email FROM pg_class LIMIT 1", email)
        structlog.get_logger().info("found")

    @app.post("/customers/{email}")
    async def rename(email: str, write: WriteSession) -> None:
        await write.execute(text("SELECT CAST(:email AS text)"), {"email": email})
        await write.execute(text("SELECT 'hunter2' AS password, 47.11 AS pin"))
        await in_transaction(write).executemany(EMAILS, [{"email": email}] * 2)

    @app.get("/misspelt")
    async def misspelt(read: ReadSession) -> None:
        await read.fetch("SELECT * FROM no_such_table")

    @app.get("/failing")
    async def failing() -> None:
        raise HTTPException(503)

    @app.get("/carried-on")
    async def carried_on() -> dict[str, str]:
        return tracing.carried_on()

    @app.get("/basket")
    async def basket() -> None:
        with tracing.span("price the basket", {"basket.lines": 3}):
            structlog.get_logger().info("priced")
            logging.getLogger("some.library").warning("rounded")

    return app


async def test_a_request_has_its_reads_below_it(receiver: Receiver, serve: Serve) -> None:
    async with serve(shop()) as client:
        await client.get("/customers/ada@example.com")

    request = receiver.span("GET /customers/{email}")
    assert (request.service, request.kind, request.parent_id) == ("shop", "SERVER", "")
    assert request.attributes == {
        "http.request.method": "GET",
        "http.route": "/customers/{email}",
        "http.response.status_code": 200,
        "url.scheme": "https",
    }
    [sql] = receiver.children(request)
    assert (sql.name, sql.kind, sql.trace_id) == ("SELECT pg_class", "CLIENT", request.trace_id)
    assert sql.attributes == {
        "db.system.name": "postgresql",
        "db.query.text": "SELECT $1::text AS email FROM pg_class LIMIT ?",
    }
    assert 0 < sql.seconds < request.seconds


async def test_a_request_has_its_transaction_below_it(receiver: Receiver, serve: Serve) -> None:
    async with serve(shop()) as client:
        await client.post("/customers/ada@example.com")

    statements = receiver.children(receiver.span("POST /customers/{email}"))
    # SQLAlchemy's first connection has begun and rolled back another, to read settings.
    assert [sql.attributes["db.query.text"] for sql in statements[-5:]] == [
        "BEGIN;",
        "SELECT CAST($1 AS text)",
        "SELECT ? AS password, ? AS pin",
        "SELECT $1::VARCHAR AS email",
        "COMMIT;",
    ]


async def test_spans_of_a_team_and_of_a_library_are_part_of_the_trace(
    receiver: Receiver, serve: Serve
) -> None:
    app = shop()
    library = trace.get_tracer("some.library", "1.0")

    @app.get("/quotes")
    async def quote(read: ReadSession) -> bool:
        with trace.get_tracer(__name__).start_as_current_span("price the order"):
            await read.fetch("SELECT (SELECT count(*) FROM pg_am) FROM pg_class LIMIT 1")
            with tracing.span("choose a rate"):
                rates = library.start_span("GET rates", kind=trace.SpanKind.CLIENT)
                rates.end()
        return rates.is_recording()

    async with serve(app) as client:
        await client.get("/quotes")

    request = receiver.span("GET /quotes")
    [price] = receiver.children(request)
    assert (price.name, price.service) == ("price the order", "shop")
    assert [span.name for span in receiver.children(price)] == ["SELECT pg_class", "choose a rate"]
    [rates] = receiver.children(receiver.span("choose a rate"))
    assert (rates.name, rates.kind) == ("GET rates", "CLIENT")
    assert {span.trace_id for span in receiver.spans} == {request.trace_id}


@pytest.mark.usefixtures("no_request_is_sampled")
async def test_spans_of_a_team_in_a_request_that_is_not_sampled_are_not_recorded(
    receiver: Receiver, serve: Serve
) -> None:
    app = shop()

    @app.get("/quotes")
    async def quote(read: ReadSession) -> dict[str, Any]:
        request = trace.get_current_span().get_span_context()
        with trace.get_tracer(__name__).start_as_current_span("price the order") as span:
            await read.fetch("SELECT 1 FROM pg_class LIMIT 1")
        is_same_trace = span.get_span_context().trace_id == request.trace_id
        return {"is_recording": span.is_recording(), "is_same_trace": is_same_trace}

    async with serve(app) as client:
        answer = await client.get("/quotes")

    assert answer.json() == {"is_recording": False, "is_same_trace": True}
    assert receiver.spans == []


@pytest.mark.parametrize(("ratio", "recorded"), [("0", 0), ("1", 20)])
async def test_a_span_of_a_team_outside_a_request_is_a_trace_if_the_sampler_takes_it(
    receiver: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch, ratio: str, recorded: int
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", ratio)
    async with serve(shop()):
        for _ in range(20):
            with trace.get_tracer(__name__).start_as_current_span("nightly report"):
                pass

    assert len({span.trace_id for span in receiver.spans}) == recorded
    assert [span.parent_id for span in receiver.spans] == [""] * recorded


async def test_no_personal_data_and_no_secret_is_sent(receiver: Receiver, serve: Serve) -> None:
    # None of them can be part of a span's id, which is random hexadecimal digits.
    secrets = ["ada@example.com", "hunter2", "47.11", "s3cr3t", "198.51.100.7"]
    headers = {
        "Cookie": "__Host-session=s3cr3t",
        "Authorization": "Bearer s3cr3t",
        "X-Forwarded-For": "198.51.100.7",
        "User-Agent": "ada@example.com",
    }
    async with serve(shop()) as client:
        for method in ("GET", "POST"):
            await client.request(method, "/customers/ada@example.com?s3cr3t", headers=headers)

    assert len(receiver.spans) >= 7
    sent = repr(receiver.spans)
    assert [secret for secret in secrets if secret in sent] == []


@pytest.mark.usefixtures("no_request_is_sampled")
async def test_a_request_that_is_not_sampled_sends_nothing_and_tells_other_services(
    receiver: Receiver, serve: Serve
) -> None:
    async with serve(shop()) as client:
        await client.get("/customers/ada@example.com")
        await client.get("/basket")
        carried_on = (await client.get("/carried-on")).json()

    flags = carried_on["traceparent"].split("-")[3]
    assert int(flags, 16) & TraceFlags.SAMPLED == 0
    assert receiver.spans == []


async def test_the_share_of_sampled_requests_is_about_the_ratio(
    receiver: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    async with serve(shop()) as client:
        for _ in range(200):
            await client.get("/carried-on")

    assert 50 < len(receiver.spans) < 150


@pytest.mark.usefixtures("no_request_is_sampled")
async def test_an_error_that_was_not_sampled_is_kept_with_the_id_of_its_log_lines(
    receiver: Receiver, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    async with serve(shop()) as client:
        await client.get("/failing")
        await client.get("/misspelt")

    known, unknown = receiver.span("GET /failing"), receiver.span("GET /misspelt")
    assert (known.is_error, known.attributes["error.type"]) == (True, "503")
    assert (unknown.is_error, unknown.attributes["error.type"]) == (True, "500")
    assert known.attributes["trace.kept_for"] == "error"
    assert receiver.children(unknown) == []
    requests = [line for line in lines(capsys) if line["event"] == "request"]
    ids = [(line["trace_id"], line["span_id"]) for line in requests]
    assert ids == [(one.trace_id, one.span_id) for one in (known, unknown)]


@pytest.mark.usefixtures("no_request_is_sampled")
async def test_a_slow_request_that_was_not_sampled_is_kept(
    receiver: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    clock = SimpleNamespace(perf_counter=lambda: now[0], time_ns=time.time_ns)
    for module in ("answers", "telemetry.requests"):
        monkeypatch.setattr(f"app.infra.{module}.time", clock)

    async def a_minute_passes() -> None:
        now[0] += 61

    app = shop()
    app.add_api_route("/slow", a_minute_passes)

    @app.get("/letters")
    async def letters(tasks: BackgroundTasks) -> None:
        tasks.add_task(a_minute_passes)  # after the answer

    async with serve(app) as client:
        await client.get("/slow")
        await client.get("/letters")

    [slow] = receiver.spans
    assert (slow.name, slow.attributes["trace.kept_for"]) == ("GET /slow", "slow")
    assert slow.seconds == pytest.approx(61)


@pytest.mark.usefixtures("no_request_is_sampled")
async def test_a_callers_trace_is_continued(receiver: Receiver, serve: Serve) -> None:
    headers = {"traceparent": SAMPLED, "tracestate": "vendor=1"}
    async with serve(shop()) as client:
        carried_on = (await client.get("/carried-on", headers=headers)).json()

    [request] = receiver.spans
    assert request.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert request.parent_id == "b7ad6b7169203331"
    assert carried_on == {
        "traceparent": f"00-{request.trace_id}-{request.span_id}-01",
        "tracestate": "vendor=1",
    }


async def test_a_tracestate_that_is_not_a_valid_header_is_dropped(
    receiver: Receiver, serve: Serve
) -> None:
    headers = [(b"traceparent", SAMPLED.encode()), (b"tracestate", b"vendor=\xe9")]
    async with serve(shop()) as client:
        answer = await client.get("/carried-on", headers=headers)

    assert answer.status_code == 200
    assert "tracestate" not in answer.json()


@pytest.mark.parametrize(
    "tracestate",
    ["hunter2", "a=1,hunter2=\xe9", f"hunter2={' ' * 5000}x", "hunter2=1," * 40, "hunter2" * 2000],
)
async def test_the_text_of_a_tracestate_is_not_logged(
    receiver: Receiver, serve: Serve, capsys: pytest.CaptureFixture[str], tracestate: str
) -> None:
    headers = [(b"traceparent", SAMPLED.encode()), (b"tracestate", tracestate.encode("latin-1"))]
    async with serve(shop()) as client:
        assert (await client.get("/carried-on", headers=headers)).status_code == 200

    logged = capsys.readouterr().out
    assert "/carried-on" in logged
    assert "hunter2" not in logged


async def test_a_request_whose_caller_did_not_sample_is_not_sampled(
    receiver: Receiver, serve: Serve
) -> None:
    async with serve(shop()) as client:
        answer = await client.get("/carried-on", headers={"traceparent": NOT_SAMPLED})

    assert answer.json()["traceparent"].split("-")[1::2] == [
        "0af7651916cd43dd8448eb211c80319c",
        "00",
    ]
    assert receiver.spans == []


async def test_a_setting_ignores_the_callers_decision(
    receiver: Receiver, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    async with serve(shop()) as client:
        await client.get("/carried-on", headers={"traceparent": NOT_SAMPLED})

    assert [span.parent_id for span in receiver.spans] == ["b7ad6b7169203331"]


@pytest.mark.parametrize(
    "odd",
    [
        "",
        "no",
        SAMPLED.upper(),
        SAMPLED.replace("00-", "ff-", 1),
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
    ],
)
async def test_an_invalid_traceparent_is_ignored_and_a_new_trace_begins(
    receiver: Receiver, serve: Serve, odd: str
) -> None:
    async with serve(shop()) as client:
        await client.get("/carried-on", headers={"traceparent": odd})

    [request] = receiver.spans
    assert request.parent_id == ""
    assert request.trace_id != "0af7651916cd43dd8448eb211c80319c"


async def test_every_line_of_a_request_names_its_trace_and_the_span_it_is_in(
    receiver: Receiver, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    app = shop()
    # Again, now that pytest has put its own stdout in place.
    configure(LogSettings(), tracing.add_ids)
    async with serve(app) as client:
        await client.get("/basket")

    request, priced = receiver.span("GET /basket"), receiver.span("price the basket")
    assert (priced.parent_id, priced.attributes) == (request.span_id, {"basket.lines": 3})
    assert [(line["event"], line["trace_id"], line["span_id"]) for line in lines(capsys)] == [
        ("priced", request.trace_id, priced.span_id),
        ("rounded", request.trace_id, priced.span_id),
        ("request", request.trace_id, request.span_id),
    ]


async def test_a_statement_that_fails_is_an_error_in_the_trace(
    receiver: Receiver, serve: Serve
) -> None:
    async with serve(shop()) as client:
        await client.get("/misspelt")

    [sql] = receiver.children(receiver.span("GET /misspelt"))
    assert sql.is_error
    assert sql.attributes["error.type"] == "UndefinedTableError"


async def test_the_text_of_an_unknown_path_is_not_sent(receiver: Receiver, serve: Serve) -> None:
    async with serve(shop()) as client:
        await client.get("/customers/ada@example.com/orders")
        await client.request("BREW", "/customers/ada@example.com")

    assert [span.name.split()[0] for span in receiver.spans] == ["GET", "HTTP"]
    assert receiver.span("GET").attributes.keys() == {
        "http.request.method",
        "http.response.status_code",
        "url.scheme",
    }


@pytest.mark.slow
def test_without_an_endpoint_no_exporter_is_imported_and_no_middleware_added() -> None:
    listing = """import sys
from app.main import create_app
app = create_app()
print(*[middleware.cls.__name__ for middleware in app.user_middleware], *sys.modules)
"""
    found = run_python("-c", listing, check=True).stdout.split()

    assert "RequestLog" in found
    assert "RequestTelemetry" not in found
    heavy = ("opentelemetry.exporter", "requests", "google.protobuf")
    assert [name for name in found if name.startswith(heavy)] == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_SAMPLER_ARG", "5%"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("TRACES_SLOW_SECONDS", "0"),
    ],
)
def test_a_wrong_setting_stops_the_process_before_it_listens(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SystemExit, match=f"{variable}: "):
        bare_app()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
