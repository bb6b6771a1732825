# Rung's file: advancing to another stage may change it.
"""Traces and metrics, sent over OTLP/HTTP. Off until there is an endpoint to send them to."""

import asyncio
import logging
import math
import threading
import time
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Literal, Protocol

from fastapi import FastAPI
from pydantic import Field, PositiveFloat, PositiveInt
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra import environment, metrics, metrics_sources, tracing_clients
from app.infra.metrics import Histogram
from app.infra.telemetry_requests import RequestKey, RequestTelemetry
from app.infra.tracing import Sampling, Tracer

# What cannot be sent within this when the process ends is lost.
FLUSH_SECONDS = 5.0

# The library's loggers.
EXPORTERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
)


class TelemetrySettings(BaseSettings):
    """OpenTelemetry's own variables; its libraries read the others, such as headers, themselves."""

    model_config = SettingsConfigDict(env_prefix="OTEL_", env_ignore_empty=True)

    sdk_disabled: bool = False
    service_name: str = ""
    exporter_otlp_endpoint: str = ""
    exporter_otlp_traces_endpoint: str = ""
    exporter_otlp_metrics_endpoint: str = ""
    exporter_otlp_protocol: Literal["http/protobuf"] = "http/protobuf"
    traces_exporter: Literal["otlp", "none"] = "otlp"
    metrics_exporter: Literal["otlp", "none"] = "otlp"
    traces_sampler: Literal[
        "always_on",
        "always_off",
        "traceidratio",
        "parentbased_always_on",
        "parentbased_always_off",
        "parentbased_traceidratio",
    ] = "parentbased_traceidratio"
    traces_sampler_arg: Annotated[float, Field(ge=0, le=1)] = 0.05
    metric_export_interval: PositiveInt = 60_000

    @property
    def sends_traces(self) -> bool:
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.traces_exporter != "none" and not self.sdk_disabled

    @property
    def sends_metrics(self) -> bool:
        endpoint = self.exporter_otlp_metrics_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.metrics_exporter != "none" and not self.sdk_disabled

    @property
    def sampling(self) -> Sampling:
        if not self.sends_traces:
            return Sampling(0, follows_caller=False)
        name = self.traces_sampler.removeprefix("parentbased_")
        ratios = {"always_on": 1.0, "always_off": 0.0, "traceidratio": self.traces_sampler_arg}
        return Sampling(ratios[name], follows_caller=name != self.traces_sampler)


class TracesSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRACES_")

    slow_seconds: PositiveFloat = 1.0


class OnceAMinute(logging.Filter):
    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said.get(record.msg, -math.inf) < 60:
            return False
        self._said[record.msg] = now
        return True


class Sender(Protocol):
    def stop(self) -> None: ...


class Telemetry:
    """What the requests of one app are noted in, from its making to its end."""

    def __init__(self, settings: TelemetrySettings) -> None:
        self.settings = settings
        self.tracer = Tracer(settings.sampling)
        self.durations = Histogram[RequestKey](metrics_sources.REQUEST_SECONDS)
        self.delays = Histogram[None](metrics_sources.DELAY_SECONDS)


def install(app: FastAPI) -> None:
    settings = environment.read(TelemetrySettings)
    slow_seconds = environment.read(TracesSettings).slow_seconds
    if not (settings.sends_traces or settings.sends_metrics):
        return
    telemetry = app.state.telemetry = Telemetry(settings)
    metrics.observe(
        app,
        metrics_sources.of_requests(telemetry.durations),
        metrics_sources.of_event_loop(telemetry.delays),
        *metrics_sources.of_app(app),
    )
    tracing_clients.trace_clients()
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
    with _said_once_a_minute():
        senders = _start(app, telemetry)
        watch = asyncio.create_task(metrics.watch_event_loop(telemetry.delays))
        try:
            yield
        finally:
            watch.cancel()
            await asyncio.to_thread(_stop_within, FLUSH_SECONDS, senders)


@contextmanager
def _said_once_a_minute() -> Iterator[None]:
    """While nobody receives, the exporters would say so at each attempt."""
    once_a_minute = OnceAMinute()
    for name in EXPORTERS:
        logging.getLogger(name).addFilter(once_a_minute)
    yield
    for name in EXPORTERS:
        logging.getLogger(name).removeFilter(once_a_minute)


def _start(app: FastAPI, telemetry: Telemetry) -> list[Sender]:
    # Imported here and not above: it takes a third of a second, and most have no endpoint yet.
    from app.infra import telemetry_export

    settings = telemetry.settings
    resource = telemetry_export.resource(settings.service_name or app.title)
    senders: list[Sender] = []
    if settings.sends_traces:
        spans = telemetry_export.SpanSender(resource)
        telemetry.tracer.record = spans.record
        metrics.observe(app, *spans.instruments())
        senders.append(spans)
    if settings.sends_metrics:
        seconds = settings.metric_export_interval / 1000
        senders.append(telemetry_export.MetricSender(resource, app.state.instruments, seconds))
    return senders


def _stop_within(seconds: float, senders: Iterable[Sender]) -> None:
    # Daemons: one whose receiver hangs does not keep the process.
    threads = [threading.Thread(target=sender.stop, daemon=True) for sender in senders]
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
