"""The generated app against a bare FastAPI, in one interleaved run. Run it inside a generated repo:

    uv run python path/to/rung/benchmarks/http_throughput.py

Needs wrk. One worker each, 32 connections, 1,000 products, on its own Postgres.
"""

import argparse
import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from comparing import Against, longest_tail, report
from serving import (
    cookie_of_somebody,
    interleave,
    items,
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

# The part of a bare FastAPI's throughput that each route must reach.
OF_HELLO = Against("hello", "of hello", {"item by id": 0.40, "page of 20": 0.30, "me": 0.35})
P99_IN_P50 = 3
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
    met = report("what", results, OF_HELLO)
    tail, started = longest_tail(results, OF_HELLO.least), statistics.median(listening)
    print(f"\nlongest tail: p99 of {tail:.1f} times p50 (at most {P99_IN_P50})")
    print(f"resident after the load: {resident:.0f} MiB (at most {RESIDENT_MIB})")
    print(f"listening after: {started:.2f} s (at most {LISTENING_SECONDS})")
    met &= tail <= P99_IN_P50 and resident <= RESIDENT_MIB and started <= LISTENING_SECONDS
    print("\nEvery target is met." if met else "\nA target is missed.")
    return 0 if met else 1


def _cases(hello: str, app: str) -> dict[str, list[str]]:
    return {
        "hello": [f"{hello}/hello"],
        "item by id": [f"{app}{items(app)[0]}"],
        "page of 20": [f"{app}/products?limit=20"],
        "me": [f"{app}/me", "-H", f"Cookie: {cookie_of_somebody(app)}"],
    }


if __name__ == "__main__":
    sys.exit(main())
