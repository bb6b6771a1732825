# Rung's file: advancing to another stage may change it.
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra.telemetry.metrics import Histogram
from app.infra.telemetry.tracing import Span, Tracer

# Anybody can make up a method, and each would be a series of its own for ever.
METHODS = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)

# Method, scheme, route and status.
type RequestKey = tuple[str, str, str | None, int]


class RequestTelemetry:
    """Gives a request its trace, and counts it by route, method and status.

    Errors and slow requests are always kept: one that was not sampled is recorded when it has
    ended so, alone, for what it asked of others was not recorded meanwhile.
    """

    def __init__(
        self, app: ASGIApp, tracer: Tracer, durations: Histogram[RequestKey], slow_seconds: float
    ) -> None:
        self.app = app
        self._tracer = tracer
        self._durations = durations
        self._slow_seconds = slow_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method = scope["method"] if scope["method"] in METHODS else "_OTHER"
        span = self._tracer.begin(method, scope["headers"])
        status = 500  # unless something else is answered
        seconds = 0.0

        async def send_and_note(message: Message) -> None:
            nonlocal status, seconds
            await send(message)
            if message["type"] == "http.response.start":
                status = message["status"]
            elif not message.get("more_body"):
                seconds = span.seconds  # Background tasks are still to come; nobody waits for them.

        span.enter()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            span.leave()
            seconds = seconds or span.seconds
            key = (method, scope["scheme"], getattr(scope.get("route"), "path", None), status)
            self._durations.note(key, seconds)
            kept_for = "error" if status >= 500 else "slow" if seconds > self._slow_seconds else ""
            if span.trace.is_sampled or kept_for:
                _record(span, key, seconds, kept_for)


def _record(span: Span, key: RequestKey, seconds: float, kept_for: str) -> None:
    method, _, route, status = key
    verb = "HTTP" if method == "_OTHER" else method
    span.name = f"{verb} {route}" if route else verb
    span.attributes = request_attributes(key)
    if not span.trace.is_sampled:
        span.attributes["trace.kept_for"] = kept_for
    span.end(str(status) if status >= 500 else "", after=seconds)


def request_attributes(key: RequestKey) -> dict[str, str | int]:
    """By OpenTelemetry's names; the path as the route has it, for a real one may name a person."""
    method, scheme, route, status = key
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "url.scheme": scheme,
        "http.response.status_code": status,
    }
    if route:
        attributes["http.route"] = route
    return attributes
