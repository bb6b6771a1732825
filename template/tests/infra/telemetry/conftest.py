# Rung's file: advancing to another stage may change it.
"""Fixtures for the tests of telemetry."""

import pytest
from opentelemetry import trace
from opentelemetry.util._once import Once

from app.infra.telemetry import tracing


@pytest.fixture(autouse=True)
def no_provider_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process has one provider for ever, and each test an app with its own."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    tracing.tracer.cache_clear()
