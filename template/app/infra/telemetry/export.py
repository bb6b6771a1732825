# Rung's file: advancing to another stage may change it.
"""Sends spans and counts from threads. A receiver that is down costs a bounded queue and log lines.

Importing the exporters takes 0.3 s, and a process without an endpoint needs none.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    PeriodicExportingMetricReader,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app.infra.telemetry.metrics import Buckets, Histogram, Instrument
from app.infra.telemetry.settings import TelemetrySettings
from app.infra.telemetry.tracing import NAME, Attributes

log = structlog.get_logger()

CUMULATIVE = AggregationTemporality.CUMULATIVE


class OnceAMinute(logging.Filter):
    """While the receiver is down, an exporter would log each attempt."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now, message = time.monotonic(), (record.name, record.msg)
        if now - self._logged.get(message, -math.inf) < 60:
            return False
        self._logged[message] = now
        return True


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


class MetricSender:
    def __init__(
        self,
        resource: Resource,
        instruments: Sequence[Instrument | Histogram[Any]],
        seconds: float,
    ) -> None:
        self._resource = resource
        self._instruments = instruments
        self._started = time.time_ns()
        logging.getLogger(OTLPMetricExporter.__module__).filters = [OnceAMinute()]
        reader = PeriodicExportingMetricReader(OTLPMetricExporter(), seconds * 1000)
        reader._set_collect_callback(self._collected)
        self.stop = reader.shutdown

    def _collected(self, *_: object, **__: object) -> MetricsData:
        scope = ScopeMetrics(InstrumentationScope(NAME), list(self._metrics(time.time_ns())), "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _metrics(self, now: int) -> Iterator[Metric]:
        for instrument in self._instruments:
            try:
                metric = self._metric(instrument, now)
            except Exception:  # `read` may be the team's code; a mistake stops no other metric
                log.exception("a metric could not be read", metric=instrument.name)
            else:
                yield metric

    def _metric(self, instrument: Instrument | Histogram[Any], now: int) -> Metric:
        data: HistogramData | Gauge | Sum
        if isinstance(instrument, Histogram):
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
    counts = list(buckets.counts)  # a copy, because requests are still being counted
    return HistogramDataPoint(
        attributes,
        started,
        now,
        count=sum(counts),
        sum=buckets.sum,
        bucket_counts=counts,
        explicit_bounds=bounds,
        min=None,  # type: ignore[arg-type]  # not counted, and optional
        max=None,  # type: ignore[arg-type]
    )


def stop(senders: Iterable[Callable[[], None]], seconds: float) -> None:
    """Let each send the rest. Data that a hung receiver has not taken after `seconds` is lost."""
    threads = [threading.Thread(target=send_the_rest, daemon=True) for send_the_rest in senders]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
