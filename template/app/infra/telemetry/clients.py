# Rung's file: advancing to another stage may change it.
"""Spans of SQL statements and of outgoing HTTP requests.

Patches the drivers, as OpenTelemetry's own instrumentations do, so that no other file changes.
Without telemetry nothing is patched.
"""

import functools
import importlib.util
import re
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import asyncpg
from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind
from sqlalchemy.engine.default import DefaultDialect

from app.infra.statement_text import HIDDEN, outer
from app.infra.telemetry import tracing

if TYPE_CHECKING:
    import httpx

# Compiled queries hold no values; a text() may.
_VALUES = re.compile(r"'(?:[^']|'')*'|(?<![\w$.])\d+(?:\.\d+)?\b")
_TARGET = re.compile(
    r"(?<!DISTINCT )\b(?:FROM|INTO|UPDATE)\s+(?:ONLY\s+)?\"?([\w.]+)", re.IGNORECASE
)
_SUBQUERY = re.compile(rf"\bFROM\s+(?:LATERAL\s+)?({HIDDEN}+)", re.IGNORECASE)
DEFAULT_PORTS = {"http": 80, "https": 443}


@functools.cache
def trace_clients() -> None:
    for name in ("execute", "executemany", "fetch", "fetchrow", "fetchval"):
        setattr(asyncpg.Connection, name, _in_spans(getattr(asyncpg.Connection, name)))
    # SQLAlchemy prepares its statements: only its BEGIN and COMMIT pass through these methods.
    for name in ("do_execute", "do_executemany", "do_execute_no_params"):
        setattr(DefaultDialect, name, _executed_in_span(getattr(DefaultDialect, name)))
    if importlib.util.find_spec("httpx"):
        _trace_httpx()


def _in_spans(ask: Any) -> Any:
    @functools.wraps(ask)
    def ask_in_span(self: Any, query: str, *args: Any, **options: Any) -> Awaitable[Any]:
        asked: Awaitable[Any] = ask(self, query, *args, **options)
        return _within_span(query, asked) if trace.get_current_span().is_recording() else asked

    return ask_in_span


async def _within_span(statement: str, asked: Awaitable[Any]) -> Any:
    with tracing.span(_name(statement), _described(statement), SpanKind.CLIENT):
        return await asked


def _executed_in_span(execute: Any) -> Any:
    @functools.wraps(execute)
    def execute_in_span(self: Any, cursor: Any, statement: str, *given: Any) -> None:
        if trace.get_current_span().is_recording():
            with tracing.span(_name(statement), _described(statement), SpanKind.CLIENT):
                execute(self, cursor, statement, *given)
        else:
            execute(self, cursor, statement, *given)

    return execute_in_span


def _described(statement: str) -> tracing.Attributes:
    return {"db.system.name": "postgresql", "db.query.text": _VALUES.sub("?", statement)}


def _name(statement: str) -> str:
    verb = statement.split(maxsplit=1)[0].upper().rstrip(";") if statement.strip() else "SQL"
    table = table_of(statement)
    return f"{verb} {table}" if table else verb


@functools.lru_cache(maxsize=1000)  # per copy: the same in all
def table_of(sql: str) -> str | None:
    """The table that the statement names first, or that of its subquery if it names none."""
    masked = outer(sql)
    if found := _TARGET.search(masked):
        return found[1]
    if inner := _SUBQUERY.search(masked):
        return table_of(sql[inner.start(1) + 1 : inner.end(1) - 1])
    anywhere = _TARGET.search(sql)
    return anywhere[1] if anywhere else None


def _trace_httpx() -> None:
    import httpx

    send = httpx.HTTPTransport.handle_request
    send_async = httpx.AsyncHTTPTransport.handle_async_request

    def send_in_span(self: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        with _outgoing(request) as span:
            request.headers.update(tracing.carried_on())
            return _answered(span, send(self, request))

    async def send_async_in_span(
        self: httpx.AsyncHTTPTransport, request: httpx.Request
    ) -> httpx.Response:
        with _outgoing(request) as span:
            request.headers.update(tracing.carried_on())
            return _answered(span, await send_async(self, request))

    httpx.HTTPTransport.handle_request = send_in_span  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = send_async_in_span  # type: ignore[method-assign]


def _outgoing(request: "httpx.Request") -> AbstractContextManager[Span | None]:
    # Only the host, because paths and queries may name a person.
    attributes: tracing.Attributes = {
        "http.request.method": request.method,
        "server.address": request.url.host,
        "server.port": request.url.port or DEFAULT_PORTS.get(request.url.scheme, 0),
    }
    return tracing.span(request.method, attributes, SpanKind.CLIENT)


def _answered(span: Span | None, response: "httpx.Response") -> "httpx.Response":
    if span:
        span.set_attribute("http.response.status_code", response.status_code)
    return response
