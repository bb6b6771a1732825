"""Checks the API's description, and that the running app answers as described (Schemathesis)."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from app.accounts import promote
from dev import ports
from dev.pytest_plugin import Services
from tests.conftest import PASSWORD

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

# Each of these paths ends or replaces the session that the other paths need.
SESSION_PATHS = ["/accounts", "/session", "/tokens", "/tokens/current", "/me/sessions"]
ABOUT_SESSIONS = [f"--include-path={path}" for path in SESSION_PATHS]
ABOUT_THE_REST = [f"--exclude-path={path}" for path in SESSION_PATHS]


async def test_each_operation_is_named_by_its_function(app: FastAPI) -> None:
    paths = app.openapi()["paths"].values()
    names = [operation["operationId"] for path in paths for operation in path.values()]

    assert {"log_in", "create_token", "change_password", "live"} <= set(names)
    assert len(names) == len(set(names))


async def test_an_answer_that_says_when_to_try_again_is_described(app: FastAPI) -> None:
    answers = app.openapi()["paths"]["/session"]["post"]["responses"]

    described = {status for status, answer in answers.items() if "headers" in answer}
    assert described == {"429", "503"}
    assert answers["429"]["headers"]["Retry-After"]["schema"] == {"type": "integer"}


async def test_a_total_is_described_as_a_number_of_64_bits(app: FastAPI) -> None:
    order = app.openapi()["components"]["schemas"]["OrderOut"]["properties"]

    assert order["total_cents"]["format"] == "int64"


@pytest.fixture
def server(services: Services) -> Iterator[str]:
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


@pytest.mark.slow
def test_registering_and_logging_in_answer_as_described(server: str) -> None:
    assert_answers_as_described(server, options=ABOUT_SESSIONS)


@pytest.mark.slow
def test_all_other_routes_answer_a_visitor_as_described(server: str) -> None:
    assert_answers_as_described(server, options=ABOUT_THE_REST)


@pytest.mark.slow
@pytest.mark.parametrize("is_staff", [False, True])
def test_all_other_routes_answer_as_described(server: str, tmp_path: Path, is_staff: bool) -> None:
    person = {"email": "ada@example.com", "password": PASSWORD}
    answer = httpx.post(f"{server}/accounts", json=person)
    if is_staff:
        asyncio.run(promote.main(person["email"]))
    config = tmp_path / "schemathesis.toml"
    config.write_text(f'auth.openapi.session.api_key = "{answer.cookies["__Host-session"]}"')

    assert_answers_as_described(server, f"--config-file={config}", options=ABOUT_THE_REST)


def assert_answers_as_described(server: str, *login: str, options: list[str]) -> None:
    """No answer is 5xx, and the description names each status, media type and body."""
    run = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", *login, "run", f"{server}/openapi.json"),
            *("--max-examples=5", "--generation-deterministic", "--no-color"),
            "--phases=coverage,fuzzing",
            f"--checks={','.join(CHECKS)}",
            *options,
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
