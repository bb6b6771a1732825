# Rung's file: advancing to another stage may change it.
"""Any copy can die, and any number can start: what they know lies in servers that all share.

dev/copies/lint.py looks for what a copy would keep in memory; here several run where nothing can be
written to, and each request goes to the next of them. Add what your own routes write.
"""

import importlib.util
import os
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from app.main import create_app
from dev import ports
from dev import services as development
from dev.cache import valkey
from dev.pytest_plugin import Services
from tests.infra.copies import read_only

ROOT = Path(__file__).parents[3]
START_SECONDS = 30
EMPTY = ("HOME", "PWD", "TMPDIR")
PNG = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


class Visitor:
    """Somebody whose every request reaches another copy than the one before."""

    def __init__(self, client: httpx.Client, copies: list[str]) -> None:
        self._copies = cycle(copies)
        self._client = client

    def __call__(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **request: Any
    ) -> Any:
        # As browsers do on localhost, also the Secure ones.
        cookies = "; ".join(f"{one.name}={one.value}" for one in self._client.cookies.jar)
        sent = {"Cookie": cookies, **(headers or {})}
        url = f"{next(self._copies)}{path}"
        answer = self._client.request(method, url, headers=sent, **request)
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def send(self, method: str, url: str, **request: Any) -> bytes:
        answer = self._client.request(method, url, follow_redirects=True, **request)
        assert answer.is_success, f"{method} {url}: {answer.status_code} {answer.text}"
        return answer.content


def log_in(visit: Visitor) -> None:
    person = {"email": f"{uuid4()}@example.com", "password": "correct horse battery staple"}
    visit("POST", "/accounts", json=person)
    visit("DELETE", "/session")
    visit("POST", "/session", json=person)
    for _ in range(2):
        assert visit("GET", "/me")["email"] == person["email"]


def order(visit: Visitor) -> None:
    product = next(one for one in visit("GET", "/products")["products"] if one["stock"])
    wanted = {"items": [{"product_id": product["id"], "quantity": 1}]}
    key = {"Idempotency-Key": str(uuid4())}
    placed = {visit("POST", "/orders", json=wanted, headers=key)["id"] for _ in range(3)}
    assert len(placed) == 1
    assert [one["id"] for one in visit("GET", "/orders")["orders"]] == [*placed]


def upload(visit: Visitor) -> None:
    started = visit("POST", "/uploads", json={"content_type": "image/png", "size": len(PNG)})
    visit.send(**started["send_to"], content=PNG)
    stored = visit("POST", f"/uploads/{started['id']}/completion")
    assert visit.send("GET", stored["link"]) == PNG


# Each is what the sample does; what a service has no path for is left out.
JOURNEY: dict[str, Callable[[Visitor], None]] = {
    "/accounts": log_in,
    "/orders": order,
    "/uploads": upload,
}


def visit_everything(visit: Visitor) -> None:
    paths = create_app().openapi()["paths"]
    for path in ("/live", "/ready"):
        visit("GET", path)
    for path, go in JOURNEY.items():
        if path in paths:
            go(visit)


@contextmanager
def copies(
    number: int,
    environment: Mapping[str, str],
    log: Path,
    command: Callable[[list[str]], list[str]],
) -> Iterator[list[str]]:
    """URLs of copies as in production, each run by what `command` makes of its command."""
    with log.open("wb") as output, ExitStack() as ended:
        started = {}
        for _ in range(number):
            port = ports.unused()
            process = subprocess.Popen(
                command([sys.executable, "-m", "app.infra.serve"]),
                cwd=environment["PWD"],
                env={**environment, "PORT": str(port), "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )
            ended.callback(process.wait)
            started[f"http://127.0.0.1:{port}"] = process
        for process in started.values():
            ended.callback(process.terminate)  # All of them, and only then wait for each.
        for url, process in started.items():
            _wait_until_ready(url, process, log)
        yield [*started]


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/ready").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.05)
    pytest.fail(f"no copy of the app became ready:\n{log.read_text()[-2000:]}")


@pytest.fixture
def environment(services_of_the_stage: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Where a program writes that is told nowhere else, there is an empty folder."""
    folders = {name: tmp_path / name.lower() for name in EMPTY}
    for folder in folders.values():
        folder.mkdir()
    return {
        **services_of_the_stage,
        **{name: str(folder) for name, folder in folders.items()},
        "DRAIN_SECONDS": "0",
        "LISTEN_ADDRESS": "127.0.0.1",
        "LOG_FORMAT": "json",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


@pytest.fixture
def services_of_the_stage(services: Services) -> Iterator[dict[str, str]]:
    # What `make dev` runs may hold answers from another database.
    with ExitStack() as running:
        cache = running.enter_context(valkey.running("cache"))
        given = {**os.environ, "CACHE_URL": cache.url}
        environment = running.enter_context(development.environment(given))
        if importlib.util.find_spec("app.seed"):
            subprocess.run(
                [sys.executable, "-m", "app.seed"], cwd=ROOT, env=environment, check=True
            )
        yield environment


@pytest.mark.slow
def test_copies_serve_where_nothing_can_be_written_to(
    environment: dict[str, str], tmp_path: Path
) -> None:
    log = tmp_path / "log"
    is_possible = read_only.is_possible(environment)

    def command(given: list[str]) -> list[str]:
        return read_only.wrapped(given) if is_possible else given

    with copies(2, environment, log, command) as urls, httpx.Client(timeout=30) as client:
        visit_everything(Visitor(client, urls))

    assert "Read-only file system" not in log.read_text()
    assert "Traceback" not in log.read_text()
    # Where the kernel does not let us have such a file system, this is what tells.
    assert [path for name in EMPTY for path in Path(environment[name]).iterdir()] == []
