# Rung's file: advancing to another stage may change it.
"""python traces_server.py PORT: keeps the last traces and rates, and shows them in a browser.

It receives OTLP over HTTP, as a collector does.
"""

import json
import sys
from collections import OrderedDict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from dev.telemetry.rates import Rates

PAGES = {
    "/": Path(__file__).with_name("traces.html"),
    "/charts": Path(__file__).with_name("charts.html"),
}
KEPT = 200
PROTOBUF = "application/x-protobuf"

type Plain = dict[str, Any]


class TraceServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self._traces: OrderedDict[str, list[Plain]] = OrderedDict()
        self.rates = Rates()

    def keep(self, spans: Iterator[Plain]) -> None:
        for span in spans:
            self._traces.setdefault(span["trace"], []).append(span)
            self._traces.move_to_end(span["trace"])
        while len(self._traces) > KEPT:
            self._traces.popitem(last=False)

    def newest_first(self) -> list[list[Plain]]:
        return list(self._traces.values())[::-1]


class _Handler(BaseHTTPRequestHandler):
    server: TraceServer
    protocol_version = "HTTP/1.1"

    def parse_request(self) -> bool:
        """Refuses pages of other sites: their name may point here, and their forms may be sent."""
        if not super().parse_request():
            return False
        is_here = self.headers.get("Host", "").rpartition(":")[0] in {"127.0.0.1", "localhost"}
        is_form = self.command != "GET" and self.headers["Content-Type"] != PROTOBUF
        if is_form or not is_here:
            self.send_error(403)
            return False
        return True

    def do_GET(self) -> None:
        if self.path == "/traces.json":
            self._answer(json.dumps(self.server.newest_first()).encode(), "application/json")
        elif self.path == "/metrics.json":
            self._answer(json.dumps(self.server.rates.points()).encode(), "application/json")
        elif self.path in PAGES:
            self._answer(PAGES[self.path].read_bytes(), "text/html; charset=utf-8")
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/v1/traces":
            self.server.keep(_spans(ExportTraceServiceRequest.FromString(body)))
        elif self.path == "/v1/metrics":
            self.server.rates.keep(ExportMetricsServiceRequest.FromString(body))
        self._answer(b"", PROTOBUF)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Traces-Of", Path(__file__).as_uri())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002  # its own name


def _spans(request: ExportTraceServiceRequest) -> Iterator[Plain]:
    for of_resource in request.resource_spans:
        service = _plain(of_resource.resource.attributes).get("service.name")
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                yield {
                    "trace": span.trace_id.hex(),
                    "id": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "service": service,
                    "name": span.name,
                    "kind": Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    "started": span.start_time_unix_nano / 1e6,
                    "took": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                    "failed": span.status.code == span.status.STATUS_CODE_ERROR,
                    "attributes": _plain(span.attributes),
                }


def _plain(attributes: "list[KeyValue]") -> Plain:
    return {
        pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "") for pair in attributes
    }


if __name__ == "__main__":
    TraceServer(int(sys.argv[1])).serve_forever()
