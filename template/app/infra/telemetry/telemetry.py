# Rung's file: advancing to another stage may change it.
"""Traces and metrics, sent over OTLP/HTTP. Off until there is an endpoint to send them to."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.infra import environment
from app.infra.telemetry import clients, metrics, sources
from app.infra.telemetry.metrics import Histogram
from app.infra.telemetry.requests import RequestKey, RequestTelemetry
from app.infra.telemetry.settings import TelemetrySettings, TracesSettings
from app.infra.telemetry.tracing import Tracer

# What cannot be sent within this when the process ends is lost.
FLUSH_SECONDS = 5.0


class Telemetry:
    """What one app's requests are noted in, until it is sent."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self.settings = settings
        self.tracer = Tracer(settings.sampling)
        self.durations = Histogram[RequestKey](sources.REQUEST_SECONDS)
        self.delays = Histogram[None](sources.DELAY_SECONDS)


def install(app: FastAPI) -> None:
    settings = environment.read(TelemetrySettings)
    slow_seconds = environment.read(TracesSettings).slow_seconds
    if not (settings.sends_traces or settings.sends_metrics):
        return
    telemetry = app.state.telemetry = Telemetry(settings)
    metrics.observe(
        app,
        sources.of_requests(telemetry.durations),
        sources.of_event_loop(telemetry.delays),
        *sources.of_app(app),
    )
    clients.trace_clients()
    app.add_middleware(
        RequestTelemetry,
        tracer=telemetry.tracer,
        durations=telemetry.durations,
        slow_seconds=slow_seconds,
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    telemetry: Telemetry | None = getattr(app.state, "telemetry", None)
    if telemetry is None:
        yield
        return
    # Imported here and not above: it takes a third of a second, and most have no endpoint yet.
    from app.infra.telemetry import export, metric_export, span_export

    settings = telemetry.settings
    resource = export.resource(settings.service_name or app.title)
    senders: list[export.Sender] = []
    if settings.sends_traces:
        spans = span_export.SpanSender(resource, settings)
        telemetry.tracer.record = spans.record
        metrics.observe(app, *spans.instruments())
        senders.append(spans)
    if settings.sends_metrics:
        seconds = settings.metric_export_interval / 1000
        senders.append(metric_export.MetricSender(resource, app.state.instruments, seconds))
    watch = asyncio.create_task(metrics.watch_event_loop(telemetry.delays))
    try:
        yield
    finally:
        watch.cancel()
        await asyncio.to_thread(export.stop, senders, FLUSH_SECONDS)
