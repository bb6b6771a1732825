# Rung's file: advancing to another stage may change it.
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.infra.metrics import Histogram
from app.infra.tracing import Span, Tracer

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
        status = 500  # unless something else was answered

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        span.enter()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            span.leave()
            seconds = span.seconds
            route = getattr(scope.get("route"), "path", None)
            self._durations.note((method, scope["scheme"], route, status), seconds)
            kept_for = "error" if status >= 500 else "slow" if seconds > self._slow_seconds else ""
            if span.trace.is_sampled or kept_for:
                self._record(span, scope["scheme"], route, status, kept_for)

    def _record(
        self, span: Span, scheme: str, route: str | None, status: int, kept_for: str
    ) -> None:
        method = span.name
        span.attributes = request_attributes((method, scheme, route, status))
        if not span.trace.is_sampled:
            span.attributes["trace.kept_for"] = kept_for
        verb = "HTTP" if method == "_OTHER" else method
        span.name = f"{verb} {route}" if route else verb
        span.end(str(status) if status >= 500 else "")


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
