# Rung's file: advancing to another stage may change it.
"""A receiver of OTLP over HTTP, as a collector or a vendor has it, in a thread."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent


class Received(NamedTuple):
    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    seconds: float
    is_error: bool
    attributes: dict[str, str | int]


class Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Received] = []
        self.metrics: dict[str, Metric] = {}
        self.answers = threading.Event()
        self.answers.set()
        self.asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def hang(self) -> None:
        """From now on, receive and do not answer."""
        self.answers.clear()

    def span(self, name: str) -> Received:
        [found] = [span for span in self.spans if span.name == name]
        return found

    def children(self, parent: Received) -> list[Received]:
        return [span for span in self.spans if span.parent_id == parent.span_id]

    def points(self, metric: str) -> list[tuple[dict[str, str | int], float]]:
        """The points of a metric. A point of a histogram has its count as the value."""
        data = self.metrics.get(metric, Metric())
        if data.HasField("histogram"):
            return [(_plain(p.attributes), p.count) for p in data.histogram.data_points]
        number = data.gauge if data.HasField("gauge") else data.sum
        return [(_plain(p.attributes), p.as_double or p.as_int) for p in number.data_points]


@contextmanager
def receiving() -> Iterator[Receiver]:
    with Receiver() as receiver:
        thread = threading.Thread(target=receiver.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.answers.set()
            receiver.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        self.server.answers.wait()
        if self.path == "/v1/traces":
            self.server.spans += _spans(ExportTraceServiceRequest.FromString(body))
        else:
            self.server.metrics |= _metrics(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its own name


def _spans(request: ExportTraceServiceRequest) -> Iterator[Received]:
    for of_resource in request.resource_spans:
        service = str(_plain(of_resource.resource.attributes)["service.name"])
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield Received(
                    service,
                    span.name,
                    Sent.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    _plain(span.attributes),
                )


def _metrics(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    return {
        metric.name: metric
        for of_resource in request.resource_metrics
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
    }


def _plain(attributes: "list[KeyValue]") -> dict[str, str | int]:
    return {
        pair.key: pair.value.string_value or pair.value.int_value  # the app sends only these
        for pair in attributes
    }
