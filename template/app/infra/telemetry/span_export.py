# Rung's file: advancing to another stage may change it.
"""Queues spans that have ended, and sends them in batches from a thread."""

import logging
from collections.abc import Iterable, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

from app.infra.telemetry.export import OnceAMinute
from app.infra.telemetry.metrics import Instrument
from app.infra.telemetry.settings import TelemetrySettings


class CountingExporter(OTLPSpanExporter):
    def __init__(self) -> None:
        super().__init__()
        logging.getLogger(OTLPSpanExporter.__module__).filters = [OnceAMinute()]
        self.received = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        if result is SpanExportResult.SUCCESS:
            self.received += len(spans)
        else:
            self.failed += len(spans)
        return result


class SpanSender(BatchSpanProcessor):
    def __init__(self, settings: TelemetrySettings) -> None:
        self._exporter = CountingExporter()
        super().__init__(
            self._exporter,
            max_queue_size=settings.bsp_max_queue_size,
            max_export_batch_size=min(
                settings.bsp_max_export_batch_size, settings.bsp_max_queue_size
            ),
            schedule_delay_millis=settings.bsp_schedule_delay,
        )
        self._ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self._ended += 1
        super().on_end(span)

    def instruments(self) -> Iterable[Instrument]:
        yield Instrument(
            "otel.sdk.span.ended",
            "{span}",
            "Recorded spans; those that are not exported were dropped, or wait",
            "counter",
            lambda: [(self._ended, {})],
        )
        yield Instrument(
            "otel.sdk.exporter.span.exported",
            "{span}",
            "Spans that were received, and spans that could not be sent",
            "counter",
            lambda: [
                (self._exporter.received, {}),
                (self._exporter.failed, {"error.type": "not_received"}),
            ],
        )
