# Rung's file: advancing to another stage may change it.
"""Each test has an app with its own tracer provider."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from app.infra.telemetry import tracing
from tests.infra.telemetry.otlp import Receiver, receiving


@pytest.fixture(autouse=True)
def no_provider_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside tests a process sets its provider once."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    tracing.tracer.cache_clear()


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url)
        yield receiver
