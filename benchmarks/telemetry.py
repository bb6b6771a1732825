"""The cost of telemetry for a request, sampled or not. Run it inside a generated repo of stage 3:

    uv run python path/to/rung/benchmarks/telemetry.py

No network: the middleware is called in a loop around an app that answers at once.
"""

import asyncio
import os
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))

os.environ |= {"LOG_FORMAT": "json", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}

from app.infra.telemetry.export import SpanSender
from app.infra.telemetry.requests import RequestTelemetry
from app.infra.telemetry.settings import TelemetrySettings
from app.infra.telemetry.telemetry import Telemetry

CALLS = 20_000
ROUNDS = 7
MOST_MICROSECONDS = 15

SCOPE = {
    "type": "http",
    "method": "GET",
    "scheme": "http",
    "path": "/hello",
    "headers": [(f"x-header-{n}".encode(), b"value") for n in range(8)],
}


async def hello(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


async def send(message) -> None: ...


def with_telemetry(ratio: float):
    settings = TelemetrySettings(traces_sampler_arg=ratio)
    telemetry = Telemetry(settings, "benchmark")
    telemetry.provider.add_span_processor(SpanSender(settings))
    measured = telemetry.provider, telemetry.processor, ratio, telemetry.durations
    return RequestTelemetry(hello, *measured, 1.0)


async def microseconds(app) -> float:
    begun = time.perf_counter()
    for _ in range(CALLS):
        await app(SCOPE, None, send)
    return (time.perf_counter() - begun) / CALLS * 1e6


def main() -> int:
    apps = {
        "none": hello,
        "0%": with_telemetry(0),
        "5%": with_telemetry(0.05),
        "100%": with_telemetry(1),
    }
    runs = {name: [] for name in apps}
    for _ in range(ROUNDS):
        for name, app in apps.items():
            runs[name].append(asyncio.run(microseconds(app)))
    none = statistics.median(runs["none"])
    print("| sampled | µs a request |\n|---|---|")
    for name, found in list(runs.items())[1:]:
        print(f"| {name} | {statistics.median(found) - none:.1f} |")
    return 0 if statistics.median(runs["5%"]) - none <= MOST_MICROSECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
