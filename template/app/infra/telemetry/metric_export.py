# Rung's file: advancing to another stage may change it.
"""Sends the counts of this process at each interval, and once more at the end, from a thread."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
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
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app.infra.telemetry.export import OnceAMinute
from app.infra.telemetry.metrics import Buckets, HistogramInstrument, Instrument
from app.infra.telemetry.tracing import NAME, Attributes

log = structlog.get_logger()

CUMULATIVE = AggregationTemporality.CUMULATIVE


class MetricSender:
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
        logging.getLogger(OTLPMetricExporter.__module__).filters = [OnceAMinute()]
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
        scope = ScopeMetrics(InstrumentationScope(NAME), list(self._metrics(time.time_ns())), "")
        self._exporter.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))

    def _metrics(self, now: int) -> Iterator[Metric]:
        for instrument in self._instruments:
            try:
                metric = self._metric(instrument, now)
            except Exception:  # `read` may be the team's code; a mistake stops no other metric
                log.exception("a metric could not be read", metric=instrument.name)
            else:
                yield metric

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
    counts = list(buckets.counts)  # a copy, because requests are counted meanwhile
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
