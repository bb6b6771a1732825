# Rung's file: advancing to another stage may change it.
"""Rates of requests, failures and waits between two exports, for the charts of `make dev`."""

from collections import Counter, OrderedDict, deque
from collections.abc import Sequence

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import HistogramDataPoint, Metric

REQUESTS = "http.server.request.duration"
WAITING = "db.client.connection.pending_requests"
STATUS = "http.response.status_code"
POINTS, PROCESSES = 300, 8

type Point = dict[str, float]


class Rates:
    """The points of each process of the app. Its counts begin at zero when it starts."""

    def __init__(self) -> None:
        self._counts: OrderedDict[int, Counter[str]] = OrderedDict()
        self._points: dict[int, deque[Point]] = {}

    def keep(self, request: ExportMetricsServiceRequest) -> None:
        metrics = [
            metric
            for of_resource in request.resource_metrics
            for of_scope in of_resource.scope_metrics
            for metric in of_scope.metrics
        ]
        found = {metric.name: metric for metric in metrics}
        counted = [point for metric in metrics for point in metric.histogram.data_points]
        if WAITING not in found or not counted:  # sent by another program, or too early
            return
        process, at = counted[0].start_time_unix_nano, counted[0].time_unix_nano / 1e6
        waiting = found[WAITING].gauge.data_points
        counts, bounds = _counted(found.get(REQUESTS, Metric()).histogram.data_points)
        before = self._counts.get(process, Counter())
        self._counts[process] = counts
        self._counts.move_to_end(process)
        points = self._points.setdefault(process, deque(maxlen=POINTS))
        began = points[-1]["at"] if points else process / 1e6
        seconds = max((at - began) / 1000, 0.001)
        passed = counts - before
        points.append(
            {
                "at": at,
                "requests": passed["all"] / seconds,
                "failed": passed["failed"] / seconds,
                "p95": _p95(passed, bounds) * 1000,
                "waiting": sum(point.as_int or point.as_double for point in waiting),
            }
        )
        while len(self._counts) > PROCESSES:
            del self._points[self._counts.popitem(last=False)[0]]

    def points(self) -> list[list[Point]]:
        return [list(points) for points in list(self._points.values())]


def _counted(points: Sequence[HistogramDataPoint]) -> tuple[Counter[str], list[float]]:
    counts: Counter[str] = Counter()
    bounds: list[float] = []
    for point in points:
        bounds = list(point.explicit_bounds)
        failed = any(a.key == STATUS and a.value.int_value >= 500 for a in point.attributes)
        counts["all"] += point.count
        counts["failed"] += point.count if failed else 0
        for index, count in enumerate(point.bucket_counts):
            counts[str(index)] += count
    return counts, bounds


def _p95(passed: Counter[str], bounds: Sequence[float]) -> float:
    """The upper bound of the bucket that contains the quantile."""
    left = passed["all"] * 0.95
    for index, bound in enumerate(bounds):
        left -= passed[str(index)]
        if left <= 0:
            return bound if passed["all"] else 0.0
    return bounds[-1] if bounds else 0.0
