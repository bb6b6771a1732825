# Rung's file: advancing to another stage may change it.
"""Where traces and metrics are sent, and which traces."""

from typing import Annotated, Literal

from opentelemetry.sdk.trace.sampling import ParentBased, Sampler, TraceIdRatioBased
from pydantic import Field, HttpUrl
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.infra.environment import Count, Seconds


class TelemetrySettings(BaseSettings):
    """OpenTelemetry's own variables. Its libraries read the others, such as headers."""

    model_config = SettingsConfigDict(env_prefix="OTEL_")

    sdk_disabled: bool = False
    service_name: str = ""
    exporter_otlp_endpoint: HttpUrl | None = None
    exporter_otlp_traces_endpoint: HttpUrl | None = None
    exporter_otlp_metrics_endpoint: HttpUrl | None = None
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
    metric_export_interval: Count = 60_000
    bsp_max_queue_size: Count = 2048
    # The library's 512 are encoded at once, and requests wait up to 30 ms for that.
    bsp_max_export_batch_size: Count = 64
    bsp_schedule_delay: Count = 1_000

    @property
    def sends_traces(self) -> bool:
        endpoint = self.exporter_otlp_traces_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.traces_exporter != "none" and not self.sdk_disabled

    @property
    def sends_metrics(self) -> bool:
        endpoint = self.exporter_otlp_metrics_endpoint or self.exporter_otlp_endpoint
        return bool(endpoint) and self.metrics_exporter != "none" and not self.sdk_disabled

    @property
    def ratio(self) -> float:
        """The share of traces that begin here and are recorded."""
        if not self.sends_traces:
            return 0
        ratios = {"always_on": 1, "always_off": 0, "traceidratio": self.traces_sampler_arg}
        return ratios[self.traces_sampler.removeprefix("parentbased_")]

    @property
    def sampler(self) -> Sampler:
        ratio = TraceIdRatioBased(self.ratio)
        follows_caller = self.sends_traces and self.traces_sampler.startswith("parentbased_")
        return ParentBased(ratio) if follows_caller else ratio


class TracesSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="TRACES_")

    slow_seconds: Seconds = 1.0
