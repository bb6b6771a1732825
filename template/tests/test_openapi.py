"""Checks the API's description, and that the running app answers as described (Schemathesis)."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import httpx
import pytest
from fastapi import FastAPI

from dev import ports
from dev.pytest_plugin import Services

SERVE = [sys.executable, "-m", "uvicorn", "app.main:create_app", "--factory", "--no-access-log"]

CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
]

# Paths that are not called, such as one that needs another service.
EXCLUDED: list[str] = []


async def test_each_operation_is_named_by_its_function(app: FastAPI) -> None:
    paths = app.openapi()["paths"].values()
    names = [operation["operationId"] for path in paths for operation in path.values()]

    assert "live" in names
    assert len(names) == len(set(names))


async def test_each_schema_that_the_description_refers_to_is_in_it(app: FastAPI) -> None:
    described = app.openapi()
    named = re.findall('"#/components/schemas/([^"]+)"', json.dumps(described))

    assert named
    assert set(named) <= described["components"]["schemas"].keys()


@pytest.mark.slow
def test_all_routes_answer_a_visitor_as_described(services: Services) -> None:
    with serving() as server:
        assert_answers_as_described(server)


@contextmanager
def serving() -> Iterator[str]:
    """The URL of the app as its own process."""
    port = ports.unused()
    environment = {**os.environ, "LOG_LEVEL": "ERROR"}
    process = subprocess.Popen([*SERVE, f"--port={port}"], env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_it_answers(f"{url}/ready", process)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=300)


def assert_answers_as_described(server: str, *login: str, but: Iterable[str] = ()) -> None:
    """No answer is 5xx, and the description names each status, media type and body."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", *login, "run", f"{server}/openapi.json"),
            *("--max-examples=5", "--generation-deterministic", "--no-color"),
            "--phases=coverage,fuzzing",
            f"--checks={','.join(CHECKS)}",
            *(f"--exclude-path={path}" for path in (*EXCLUDED, *but)),
        ],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60  # a busy machine
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            httpx.get(url).raise_for_status()
            return
        time.sleep(0.05)
    pytest.fail(f"{url} did not answer")
