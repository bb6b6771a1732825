# Rung's file: advancing to another stage may change it.
"""Spans of our own, made with OpenTelemetry's API.

A request that is not sampled still has a trace id: its log lines and outgoing calls carry it.
"""

import functools
import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from structlog.typing import EventDict

type Attributes = Mapping[str, str | int]

NAME = "app.infra"

_W3C = TraceContextTextMapPropagator()
_W3C_HEADERS = frozenset(name.encode() for name in _W3C.fields)
_NOTHING = nullcontext()

# Its warnings repeat up to 8 kB of any client's `tracestate`.
logging.getLogger("opentelemetry.trace.span").setLevel(logging.ERROR)


@functools.cache  # get_tracer takes 10 µs
def tracer() -> Tracer:
    return trace.get_tracer(NAME)


def span(
    name: str, attributes: Attributes | None = None, kind: SpanKind = SpanKind.INTERNAL
) -> AbstractContextManager[Span | None]:
    """A span around a `with` block if this request is sampled, otherwise None.

        with tracing.span("price the basket", {"basket.lines": len(lines)}):

    The name says what kind of thing happens, not to whom: no ids, no values, nothing personal.
    """
    if trace.get_current_span().is_recording():
        return _Recorded(name, attributes, kind)
    return _NOTHING


class _Recorded:
    """Takes half the time of start_as_current_span."""

    def __init__(self, name: str, attributes: Attributes | None, kind: SpanKind) -> None:
        self._span = tracer().start_span(name, kind=kind, attributes=attributes)

    def __enter__(self) -> Span:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self._span

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        context.detach(self._token)
        if error:  # its type only: its message may hold values
            fail(self._span, error.__qualname__)
        self._span.end()


def fail(span: Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)


def add_ids(logger: object, method: str, line: EventDict) -> EventDict:
    """Add the ids to a log line when it is written: to bind them for each span would cost more."""
    ids = trace.get_current_span().get_span_context()
    if ids.is_valid:
        line["trace_id"] = trace.format_trace_id(ids.trace_id)
        line["span_id"] = trace.format_span_id(ids.span_id)
    return line


def carried_on() -> dict[str, str]:
    """Headers for an outgoing request, with which its receiver continues this trace."""
    headers: dict[str, str] = {}
    _W3C.inject(headers)
    return headers


def caller_of(headers: list[tuple[bytes, bytes]]) -> Context:
    """The span that a request comes from, or an empty context."""
    found = {
        name.decode(): value.decode("latin-1") for name, value in headers if name in _W3C_HEADERS
    }
    return _W3C.extract(found) if found else Context()
