# Rung's file: advancing to another stage may change it.
"""The library's part: it is imported only when there is somewhere to send to, for that takes 0.3 s.

Everything is sent by threads of their own. A receiver that is away or hangs costs a bounded queue
(OTEL_BSP_MAX_QUEUE_SIZE spans, then the oldest are dropped) and a line in the log a minute.
"""

import threading
import time
from collections.abc import Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from app.infra.metrics import Buckets, HistogramInstrument, Instrument
from app.infra.tracing import Attributes, Span

SCOPE = InstrumentationScope("app.infra")
CUMULATIVE = AggregationTemporality.CUMULATIVE


def resource(service_name: str) -> Resource:
    """Who sends this; OTEL_RESOURCE_ATTRIBUTES adds to it."""
    return Resource.create({"service.name": service_name})


class SpanSender:
    """Queues spans, and sends them in batches from a thread."""

    def __init__(self, resource: Resource) -> None:
        self._resource = resource
        self._exporter = CountingExporter(OTLPSpanExporter())
        self._processor = BatchSpanProcessor(self._exporter)
        self.ended = 0

    def record(self, span: Span) -> None:
        self.ended += 1
        self._processor.on_end(_readable(span, self._resource))

    def stop(self) -> None:
        self._processor.shutdown()  # type: ignore[no-untyped-call]  # the library's own

    def instruments(self) -> Iterable[Instrument]:
        yield Instrument(
            "otel.sdk.span.ended",
            "{span}",
            "Spans that were recorded; those that are not exported were dropped, or wait",
            "counter",
            lambda: [(self.ended, {})],
        )
        yield Instrument(
            "otel.sdk.exporter.span.exported",
            "{span}",
            "Spans that were received, and those that failed to be",
            "counter",
            lambda: [
                (self._exporter.received, {}),
                (self._exporter.failed, {"error.type": "not_received"}),
            ],
        )


class CountingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self.received = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.received += len(spans)
        else:
            self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


class MetricSender:
    """Sends all that is counted, every so often and once more at the end."""

    def __init__(
        self,
        resource: Resource,
        instruments: Sequence[Instrument | HistogramInstrument],
        seconds: float,
    ) -> None:
        self._resource = resource
        self._instruments = instruments
        self._seconds = seconds
        self._started = time.time_ns()
        self._stopped = threading.Event()
        self._exporter = OTLPMetricExporter()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        self._exporter.shutdown()

    def _run(self) -> None:
        while not self._stopped.wait(self._seconds):
            self._send()
        self._send()

    def _send(self) -> None:
        now = time.time_ns()
        metrics = [self._metric(instrument, now) for instrument in self._instruments]
        scope = ScopeMetrics(SCOPE, metrics, "")
        self._exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))

    def _metric(self, instrument: Instrument | HistogramInstrument, now: int) -> Metric:
        data: HistogramData | Gauge | Sum
        if isinstance(instrument, HistogramInstrument):
            bounds = instrument.bounds
            counted = [
                _histogram_point(buckets, attributes, bounds, self._started, now)
                for buckets, attributes in instrument.read()
            ]
            data = HistogramData(counted, CUMULATIVE)
        else:
            points = [
                NumberDataPoint(attributes, self._started, now, value)
                for value, attributes in instrument.read()
            ]
            is_gauge = instrument.kind == "gauge"
            data = Gauge(points) if is_gauge else Sum(points, CUMULATIVE, is_monotonic=True)
        return Metric(instrument.name, instrument.description, instrument.unit, data)


def _histogram_point(
    buckets: Buckets, attributes: Attributes, bounds: Sequence[float], started: int, now: int
) -> HistogramDataPoint:
    counts = list(buckets.counts)  # as they are now: requests go on being counted
    return HistogramDataPoint(
        attributes,
        started,
        now,
        count=sum(counts),
        sum=buckets.sum,
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=None,  # type: ignore[arg-type]  # not kept, and may be left out
        max=None,  # type: ignore[arg-type]
    )


def _readable(span: Span, resource: Resource) -> ReadableSpan:
    trace_id, sampled = span.trace.trace_id, TraceFlags(TraceFlags.SAMPLED)
    attributes = span.attributes | ({"error.type": span.error} if span.error else {})
    return ReadableSpan(
        span.name,
        context=SpanContext(trace_id, span.span_id, is_remote=False, trace_flags=sampled),
        parent=SpanContext(trace_id, span.parent_id, is_remote=False) if span.parent_id else None,
        resource=resource,
        attributes=attributes,
        kind=span.kind,
        status=Status(StatusCode.ERROR if span.error else StatusCode.UNSET),
        start_time=span.started,
        end_time=span.ended,
        instrumentation_scope=SCOPE,
    )
