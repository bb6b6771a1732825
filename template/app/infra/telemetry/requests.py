# Rung's file: advancing to another stage may change it.
"""Gives each request its span, and counts it by route, method and status."""

import time

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision, TraceIdRatioBased
from opentelemetry.trace import INVALID_SPAN_CONTEXT, NonRecordingSpan, Span, SpanContext, SpanKind
from starlette.types import ASGIApp, Receive, Scope, Send

from app.infra.answers import answer_of
from app.infra.telemetry import tracing
from app.infra.telemetry.metrics import Histogram

# A client can invent methods, and each would add a time series that never goes away.
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)

# TraceIdRatioBased compares these bits of a trace id with its bound.
LOWER_HALF = TraceIdRatioBased.TRACE_ID_LIMIT

# Method, scheme, route and status.
type RequestKey = tuple[str, str, str | None, int]

NEW_IDS = RandomIdGenerator()


class Ids(RandomIdGenerator):
    """A request's ids are made before its span, because the decision depends on them."""

    trace_id = span_id = 0

    def generate_trace_id(self) -> int:
        return self.trace_id

    def generate_span_id(self) -> int:
        return self.span_id


class RequestTelemetry:
    """Decides whether a request is sampled, as the provider's sampler would. This saves the SDK's
    start_span (6 µs) for an unsampled request.

    Errors and slow requests are always kept. An unsampled one is recorded when it has ended,
    without child spans, because nothing was recorded before."""

    def __init__(
        self,
        app: ASGIApp,
        provider: TracerProvider,
        processor: SynchronousMultiSpanProcessor,
        ratio: float,
        durations: Histogram[RequestKey],
        slow_seconds: float,
    ) -> None:
        self.app = app
        self._sampler = provider.sampler
        self._bound = TraceIdRatioBased.get_bound_for_rate(ratio)
        self._ids = Ids()
        self._tracer = TracerProvider(
            sampler=ALWAYS_ON,
            resource=provider.resource,
            shutdown_on_exit=False,
            active_span_processor=processor,
            id_generator=self._ids,
        ).get_tracer(tracing.NAME)
        self._durations = durations
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        caller = tracing.caller_of(scope["headers"])
        started, begun = time.time_ns(), time.perf_counter()
        span = self._begin(method, caller, started)
        answer, send = answer_of(scope, send)
        token = context.attach(trace.set_span_in_context(span, caller))
        try:
            await self.app(scope, receive, send)
        finally:
            context.detach(token)
            # Background tasks follow the answer, and no client waits for them.
            seconds = (answer.ended_at or time.perf_counter()) - begun
            status = answer.status or 500
            key = (method, scope["scheme"], getattr(scope.get("route"), "path", None), status)
            self._durations.note(key, seconds)
            if not span.is_recording() and (status >= 500 or seconds > self._slow_seconds):
                span = self._recorded(method, span.get_span_context(), caller, started)
                span.set_attribute("trace.kept_for", "error" if status >= 500 else "slow")
            if span.is_recording():
                span.update_name(_name(key))
                span.set_attributes(request_attributes(key))
                if status >= 500:
                    tracing.fail(span, str(status))
                span.end(started + int(seconds * 1e9))

    def _begin(self, method: str, caller: Context, started: int) -> Span:
        if caller:
            parent = trace.get_current_span(caller).get_span_context()
            trace_id = parent.trace_id
            result = self._sampler.should_sample(caller, trace_id, method, SpanKind.SERVER)
            is_sampled = result.decision is Decision.RECORD_AND_SAMPLE
        else:
            parent = INVALID_SPAN_CONTEXT
            trace_id = NEW_IDS.generate_trace_id()
            is_sampled = trace_id & LOWER_HALF < self._bound
        span_id = NEW_IDS.generate_span_id()
        own = SpanContext(trace_id, span_id, is_remote=False, trace_state=parent.trace_state)
        return self._recorded(method, own, caller, started) if is_sampled else NonRecordingSpan(own)

    def _recorded(self, method: str, own: SpanContext, caller: Context, started: int) -> Span:
        self._ids.trace_id = own.trace_id  # per copy: the last line uses both
        self._ids.span_id = own.span_id  # per copy: as above
        return self._tracer.start_span(method, caller, SpanKind.SERVER, start_time=started)


def _name(key: RequestKey) -> str:
    method, _, route, _ = key
    verb = "HTTP" if method == "_OTHER" else method
    return f"{verb} {route}" if route else verb


def request_attributes(key: RequestKey) -> dict[str, str | int]:
    """By OpenTelemetry's names. The route and not the path, which may name a person."""
    method, scheme, route, status = key
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scheme,
        "http.response.status_code": status,
    }
    if route:
        attributes["http.route"] = route
    return attributes
