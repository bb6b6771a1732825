# Rung's file: advancing to another stage may change it.
import logging
from collections.abc import Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

from app.infra.telemetry.export import SCOPE, OnceAMinute
from app.infra.telemetry.metrics import Instrument
from app.infra.telemetry.settings import TelemetrySettings
from app.infra.telemetry.tracing import Span


class SpanSender:
    """Queues spans, and sends them in batches from a thread."""

    def __init__(self, resource: Resource, settings: TelemetrySettings) -> None:
        self._resource = resource
        self._exporter = CountingExporter(OTLPSpanExporter())
        logging.getLogger(OTLPSpanExporter.__module__).filters = [OnceAMinute()]
        self._processor = BatchSpanProcessor(
            self._exporter,
            max_queue_size=settings.bsp_max_queue_size,
            max_export_batch_size=min(
                settings.bsp_max_export_batch_size, settings.bsp_max_queue_size
            ),
            schedule_delay_millis=settings.bsp_schedule_delay,
        )
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
