# Rung's file: advancing to another stage may change it.
"""Traces and metrics, sent over OTLP/HTTP. Off until there is an endpoint to send them to."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor, TracerProvider

from app.infra import environment, logs
from app.infra.telemetry import clients, metrics, sources, tracing
from app.infra.telemetry.requests import RequestTelemetry
from app.infra.telemetry.settings import TelemetrySettings, TracesSettings

# When the process ends, telemetry that is not sent within this time is lost.
FLUSH_SECONDS = 5.0


class Telemetry:
    def __init__(self, settings: TelemetrySettings, title: str) -> None:
        self.settings = settings
        self.durations = sources.of_requests()
        self.delays = sources.of_event_loop()
        self.processor = SynchronousMultiSpanProcessor()  # type: ignore[no-untyped-call]
        self.provider = TracerProvider(
            sampler=settings.sampler,
            # OTEL_RESOURCE_ATTRIBUTES adds to it.
            resource=Resource.create({"service.name": settings.service_name or title}),
            active_span_processor=self.processor,
            shutdown_on_exit=False,  # `lifespan` does it, within FLUSH_SECONDS
        )


def install(app: FastAPI) -> None:
    settings = environment.read(TelemetrySettings)
    slow_seconds = environment.read(TracesSettings).slow_seconds
    if not (settings.sends_traces or settings.sends_metrics):
        return
    telemetry = app.state.telemetry = Telemetry(settings, app.title)
    # From here on spans of the API, the team's and those of libraries, are part of our traces.
    trace.set_tracer_provider(telemetry.provider)
    clients.trace_clients()
    logs.configure(environment.read(logs.LogSettings), tracing.add_ids)
    app.state.note_loop_delay = partial(telemetry.delays.note, None)
    metrics.observe(app, telemetry.durations, telemetry.delays, *sources.of_pools(app))
    app.add_middleware(
        RequestTelemetry,
        provider=telemetry.provider,
        processor=telemetry.processor,
        ratio=settings.ratio,
        durations=telemetry.durations,
        slow_seconds=slow_seconds,
    )


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
    telemetry: Telemetry | None = getattr(app.state, "telemetry", None)
    if telemetry is None:
        yield
        return
    from app.infra.telemetry import export  # takes 0.3 s

    settings = telemetry.settings
    senders: list[Callable[[], None]] = [telemetry.provider.shutdown]
    if settings.sends_traces:
        spans = export.SpanSender(settings)
        telemetry.provider.add_span_processor(spans)
        metrics.observe(app, *spans.instruments())
    if settings.sends_metrics:
        seconds = settings.metric_export_interval / 1000
        resource = telemetry.provider.resource
        sender = export.MetricSender(resource, app.state.instruments, seconds)
        senders.append(sender.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(export.stop, senders, FLUSH_SECONDS)
