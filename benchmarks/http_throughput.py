"""The generated app against a bare FastAPI, in one interleaved run. Run it inside a generated repo:

    uv run python path/to/rung/benchmarks/http_throughput.py

Needs wrk. One worker each, 32 connections, 1,000 products, on a Postgres of its own.
"""

import argparse
import re
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.request import urlopen

from serving import (
    interleave,
    migrated_and_filled,
    resident_mib,
    seconds_to_listen,
    serve,
    serve_app,
)

HELLO = """
from fastapi import FastAPI
app = FastAPI()
@app.get("/hello")
async def hello(): return {"hello": "world"}
"""

# How much of a bare FastAPI's throughput each must reach.
TARGETS = {"item by id": 0.20, "page of 20": 0.14, "me": 0.12}
P99_IN_P50 = 5
RESIDENT_MIB = 110
LISTENING_SECONDS = 1.2


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    with ExitStack() as stack:
        environment = stack.enter_context(migrated_and_filled())
        hello_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (hello_folder / "hello.py").write_text(HELLO)
        hello = stack.enter_context(
            serve(["--app-dir", str(hello_folder), "hello:app"], environment)
        )
        listening = [seconds_to_listen(environment) for _ in range(5)]
        app = stack.enter_context(serve_app(environment))
        cases = _cases(hello.url, app.url)
        results = interleave(cases, options.rounds, options.seconds)
        resident = resident_mib(app.process.pid)
    return _report(results, resident, statistics.median(listening))


def _cases(hello: str, app: str) -> dict[str, list[str]]:
    import httpx

    person = {"email": "ada@example.com", "password": "correct horse battery staple"}
    answer = httpx.post(f"{app}/accounts", json=person).raise_for_status()
    cookie = answer.headers["set-cookie"].split(";")[0]
    with urlopen(f"{app}/products?limit=1") as page:
        product = re.search(rb'"id":"([^"]+)"', page.read())[1].decode()
    return {
        "hello": [f"{hello}/hello"],
        "item by id": [f"{app}/products/{product}"],
        "page of 20": [f"{app}/products?limit=20"],
        "me": [f"{app}/me", "-H", f"Cookie: {cookie}"],
    }


def _report(
    results: dict[str, list[tuple[float, float, float]]], resident: float, listening: float
) -> int:
    hello = [requests for requests, _, _ in results["hello"]]
    met = True
    print("| what | requests/s | p50 ms | p99 ms | p99/p50 | of hello | at least |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in results.items():
        requests, p50, p99 = (statistics.median(column) for column in zip(*runs, strict=True))
        ratio = statistics.median(run[0] / base for run, base in zip(runs, hello, strict=True))
        target = TARGETS.get(name)
        print(
            f"| {name} | {requests:,.0f} | {p50:.1f} | {p99:.1f} | {p99 / p50:.1f} "
            f"| {ratio:.3f} | {target or ''} |"
        )
        met &= target is None or (ratio >= target and p99 <= P99_IN_P50 * p50)
    print(f"\nresident after the load: {resident:.0f} MiB (at most {RESIDENT_MIB})")
    print(f"listening after: {listening:.2f} s (at most {LISTENING_SECONDS})")
    met &= resident <= RESIDENT_MIB and listening <= LISTENING_SECONDS
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
