# Rung's file: advancing to another stage may change it.
"""Copies keep nothing on disk: they run where no file can be written.

Each request goes to another copy than the one before. dev/copies/lint.py finds state that a copy
would keep in memory.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest

from dev import ports
from dev import services as development
from dev.cache import valkey
from dev.copies.stack_copy import APP
from dev.pytest_plugin import Services
from tests.infra.conftest import execute_sql
from tests.infra.copies import read_only
from tests.infra.copies.stack_shop import SERVE, TABLE
from tests.infra.copies.stack_visitors import PICTURE

ROOT = Path(__file__).parents[3]
START_SECONDS = 300
EMPTY = ("HOME", "PWD", "TMPDIR")


class Visitor:
    """Sends each request to a different copy than the one before."""

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


def visit_everything(visit: Visitor) -> None:
    user, order, file = str(uuid4()), str(uuid4()), str(uuid4())
    for path in ("/live", "/ready", "/products"):
        visit("GET", path)
    visit("POST", f"/login/{user}")
    for _ in range(2):
        assert visit("GET", "/me") == user
    visit("POST", f"/orders/{order}")
    upload = visit("POST", f"/pictures/{file}?size={len(PICTURE)}")
    visit.send(**upload, content=PICTURE)
    assert visit("GET", f"/pictures/{file}/size") == len(PICTURE)
    assert visit.send("GET", visit("GET", f"/pictures/{file}/link")) == PICTURE


@contextmanager
def copies(
    program: Sequence[str],
    number: int,
    environment: Mapping[str, str],
    log: Path,
    command: Callable[[list[str]], list[str]],
) -> Iterator[list[str]]:
    """Yields the URLs of copies of the program. `command` wraps the command line of each."""
    with log.open("wb") as output, ExitStack() as ended:
        started = {}
        for _ in range(number):
            port = ports.unused()
            process = subprocess.Popen(
                command([*program]),
                cwd=environment["PWD"],
                env={**environment, "PORT": str(port), "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=output,
            )
            ended.callback(process.wait)
            started[f"http://127.0.0.1:{port}"] = process
        for process in started.values():
            ended.callback(process.terminate)  # Signal all of them before waiting for each.
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
    """An environment with empty folders where programs write by default."""
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
    # The cache of `make dev` may hold answers from another database.
    with ExitStack() as running:
        cache = running.enter_context(valkey.running("cache"))
        given = {**os.environ, "CACHE_URL": cache.url}
        environment = running.enter_context(development.environment(given))
        yield environment


@pytest.mark.slow
def test_copies_serve_where_nothing_can_be_written(
    services: Services, environment: dict[str, str], tmp_path: Path
) -> None:
    asyncio.run(execute_sql(services.database_url, TABLE))
    log = tmp_path / "log"
    is_possible = read_only.is_possible(environment)

    def command(given: list[str]) -> list[str]:
        return read_only.wrapped(given) if is_possible else given

    with copies(APP, 1, environment, log, command) as [url]:
        assert httpx.get(f"{url}/live").is_success
    with copies(SERVE, 2, environment, log, command) as urls, httpx.Client(timeout=30) as client:
        visit_everything(Visitor(client, urls))

    assert "Read-only file system" not in log.read_text()
    assert "Traceback" not in log.read_text()
    # If the kernel allows no read-only file system, this shows the files that were written.
    assert [path for name in EMPTY for path in Path(environment[name]).iterdir()] == []
