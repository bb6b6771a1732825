"""The generated app against a bare FastAPI, in one interleaved run. Run it inside a generated repo:

    uv run python path/to/rung/benchmarks/http_throughput.py

Needs wrk. One worker each, 32 connections, 1,000 products, on a Postgres of its own.
"""

import argparse
import asyncio
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import asyncpg

sys.path.insert(0, str(Path.cwd()))

from dev import postgres

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

FILL = """
INSERT INTO products (name, description, price_cents, stock)
SELECT 'Product ' || n, repeat('Well made. ', 10), n, 100 FROM generate_series(1, 1000) n
"""


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    options = arguments.parse_args()
    with ExitStack() as stack:
        database_url = stack.enter_context(postgres.for_load())
        environment = {
            **os.environ,
            "DATABASE_URL": database_url,
            "FILES_FOLDER": stack.enter_context(tempfile.TemporaryDirectory()),
            "SECRET_KEY": "a key of this benchmark, nothing more",
            "LOG_FORMAT": "json",
        }
        subprocess.run(["alembic", "upgrade", "head"], env=environment, check=True)
        asyncio.run(_fill(database_url))
        hello_folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (hello_folder / "hello.py").write_text(HELLO)
        hello = stack.enter_context(
            _serve(["--app-dir", str(hello_folder), "hello:app"], environment)
        )
        listening = [_seconds_to_listen(environment) for _ in range(5)]
        app = stack.enter_context(_serve(["--factory", "app.main:create_app"], environment))
        cases = _cases(hello.url, app.url)
        results = _interleave(cases, options.rounds, options.seconds)
        resident = _resident_mib(app.process.pid)
    return _report(results, resident, statistics.median(listening))


class Server:
    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self.process = process


async def _fill(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILL)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def _command(arguments: list[str], port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", *arguments, "--port", str(port)),
        *("--no-access-log", "--no-server-header", "--log-level", "warning"),
    ]


@contextmanager
def _serve(arguments: list[str], environment: dict[str, str]) -> Iterator[Server]:
    port = _free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(_command(arguments, port), env=environment, stdout=log)
        try:
            _wait_until_listening(port)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait()


def _seconds_to_listen(environment: dict[str, str]) -> float:
    port = _free_port()
    started = time.perf_counter()
    process = subprocess.Popen(
        _command(["--factory", "app.main:create_app"], port),
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        _wait_until_listening(port)
        return time.perf_counter() - started
    finally:
        process.terminate()
        process.wait()


def _wait_until_listening(port: int) -> None:
    for _ in range(2000):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.005)
    sys.exit("The server did not start.")


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


def _interleave(
    cases: dict[str, list[str]], rounds: int, seconds: int
) -> dict[str, list[tuple[float, float, float]]]:
    for arguments in cases.values():
        _wrk(arguments, 1)
    results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in cases}
    for turn in range(rounds):
        for name, arguments in cases.items():
            print(f"round {turn + 1} of {rounds}: {name}".ljust(50), end="\r", file=sys.stderr)
            results[name].append(_wrk(arguments, seconds))
    print(" " * 50, end="\r", file=sys.stderr)
    return results


def _wrk(arguments: list[str], seconds: int) -> tuple[float, float, float]:
    """Requests per second, and p50 and p99 in milliseconds."""
    command = ["wrk", "-t1", "-c32", f"-d{seconds}s", "--latency", *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        sys.exit(output)
    return (
        float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
        _milliseconds(re.search(r"50%\s+([\d.]+)(us|ms|s)", output)),
        _milliseconds(re.search(r"99%\s+([\d.]+)(us|ms|s)", output)),
    )


def _milliseconds(found: "re.Match[str]") -> float:
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


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


def _free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
