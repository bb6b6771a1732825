"""Shared by the benchmarks of the generated app: a database, processes of the app, wrk.

They run inside a generated repo: its `dev` starts the servers.
"""

import asyncio
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx

sys.path.insert(0, str(Path.cwd()))

from dev import postgres
from dev.ports import unused as free_port

FILL = """
INSERT INTO products (name, description, price_cents, stock)
SELECT 'Product ' || n, repeat('Well made. ', 10), n, 1000000 FROM generate_series(1, 1000) n
"""


class Server:
    def __init__(self, url: str, process: "subprocess.Popen[bytes]") -> None:
        self.url = url
        self.process = process


@contextmanager
def migrated_and_filled() -> Iterator[dict[str, str]]:
    """Yields the environment of an app on a new database with 1,000 products."""
    with postgres.for_load() as url, tempfile.TemporaryDirectory() as files:
        environment = {
            **os.environ,
            "DATABASE_URL": url,
            "FILES_FOLDER": files,
            "SECRET_KEY": "a key of this benchmark, nothing more",
            "LOG_FORMAT": "json",
        }
        subprocess.run(["alembic", "upgrade", "head"], env=environment, check=True)
        asyncio.run(fill(url))
        yield environment


async def fill(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(FILL)
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


def command(arguments: list[str], port: int) -> list[str]:
    return [
        *(sys.executable, "-m", "uvicorn", *arguments, "--port", str(port)),
        *("--no-access-log", "--no-server-header", "--log-level", "warning"),
    ]


def serve(
    arguments: list[str], environment: dict[str, str], folder: Path | None = None
) -> AbstractContextManager[Server]:
    port = free_port()
    return _running(command(arguments, port), port, environment, folder)


def serve_app(
    environment: dict[str, str],
    folder: Path | None = None,
    log: Path | None = None,
    starter: Sequence[str] = (),
) -> AbstractContextManager[Server]:
    """As in production, but listening on 127.0.0.1 only, and without draining."""
    port = free_port()
    here = {"PORT": str(port), "LISTEN_ADDRESS": "127.0.0.1", "DRAIN_SECONDS": "0"}
    here["APP_DOCS"] = "false"
    app = [*starter, sys.executable, "-m", "app.infra.serve"]
    return _running(app, port, environment | here, folder, log)


@contextmanager
def _running(
    command: list[str],
    port: int,
    environment: dict[str, str],
    folder: Path | None,
    log: Path | None = None,
) -> Iterator[Server]:
    with log.open("ab") if log else tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=output)
        try:
            wait_until_listening(port)
            yield Server(f"http://127.0.0.1:{port}", process)
        finally:
            process.terminate()
            process.wait()


def wait_until_listening(port: int) -> None:
    # A copy of the lowest priority takes its time on a busy machine.
    give_up = time.monotonic() + 60
    while time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.005)
    sys.exit("The server did not start.")


def seconds_to_listen(environment: dict[str, str]) -> float:
    started = time.perf_counter()
    with serve_app(environment):
        return time.perf_counter() - started


def items(url: str, count: int = 1) -> list[str]:
    """Paths of products."""
    products = httpx.get(f"{url}/products?limit={count}").raise_for_status().json()["products"]
    return [f"/products/{product['id']}" for product in products]


def cookie_of_somebody(url: str) -> str:
    """The session cookie of a new account."""
    person = {"email": f"{uuid4()}@example.com", "password": "correct horse battery staple"}
    answer = httpx.post(f"{url}/accounts", json=person).raise_for_status()
    return str(answer.headers["set-cookie"]).split(";")[0]


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


def wrk(arguments: list[str], seconds: int) -> tuple[float, float, float]:
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


type Runs = dict[str, list[tuple[float, float, float]]]


type Cases = dict[str, list[str]]


def interleave_starts(
    start: Callable[[], AbstractContextManager[Cases]], rounds: int, seconds: int
) -> Runs:
    """As interleave, but with new processes in each round: starts differ by up to 3%."""
    results: Runs = {}
    for turn in range(rounds):
        print(f"start {turn + 1} of {rounds}", file=sys.stderr)
        with start() as cases:
            for name, runs in interleave(cases, 1, seconds).items():
                results.setdefault(name, []).extend(runs)
    return results


def interleave(cases: Cases, rounds: int, seconds: int) -> Runs:
    """Runs wrk on each case, one after another, `rounds` times, after a second to warm up."""
    for arguments in cases.values():
        wrk(arguments, 1)
    results: Runs = {name: [] for name in cases}
    for turn in range(rounds):
        for name, arguments in cases.items():
            print(f"round {turn + 1} of {rounds}: {name}".ljust(70), end="\r", file=sys.stderr)
            results[name].append(wrk(arguments, seconds))
    print(" " * 70, end="\r", file=sys.stderr)
    return results


def _milliseconds(found: "re.Match[str]") -> float:
    return float(found[1]) * {"us": 0.001, "ms": 1, "s": 1000}[found[2]]
