# Rung's file: advancing to another stage may change it.
"""`make stack`, on a database of the test's own."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from urllib.request import urlopen

import pytest

from dev import ports, postgres
from dev.copies import stack_status
from dev.copies.stack import FOLDER, links
from dev.pytest_plugin import Services
from tests.infra.conftest import children, run_python
from tests.infra.copies.test_stack import installed as installed

SECONDS = 300
SAID = FOLDER / "said"


def table() -> dict[str, Sequence[str]]:
    """The rows of the status table of a stack, by name. Other tests may run a PgBouncer."""
    rows = (row for _, row in stack_status.table())
    return {row[0]: row for row in rows if row[0].startswith(("app-", "haproxy"))}


def pids() -> dict[str, int]:
    """The process ids of the servers. A copy that is restarting has none for a moment."""
    found = {name: pid for name, (_, _, _, pid, *_) in table().items()}
    return {name: int(pid) for name, pid in found.items() if pid != "-"}


def is_ready() -> bool:
    rows = table()
    return "haproxy" in rows and all(row[-1] == "yes" for row in rows.values())


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@contextmanager
def stack(copies: int, started_by: int) -> Iterator[subprocess.Popen[bytes]]:
    with SAID.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.copies.stack"],
            cwd=postgres.REPOSITORY,
            env={
                **os.environ,
                "COPIES": str(copies),
                "PORT": str(ports.unused()),
                "STARTED_BY": str(started_by),
            },
            stdout=said,
        )
    try:
        until(lambda: is_ready() or process.poll() is not None)
        assert process.poll() is None
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def make() -> Iterator[subprocess.Popen[bytes]]:
    """The process that started the stack."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def alone(services: Services, installed: None) -> Iterator[None]:
    """Runs one of these tests at a time, and none beside a developer's stack."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "tested").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if table():
            pytest.skip("a stack runs in this repository already")
        yield


def test_each_page_that_a_stack_has_is_shown() -> None:
    environment = {"DATABASE_URL": "postgresql://here/app"}
    docs, database, prompt = links("http://127.0.0.1:8000", environment)
    assert docs == "  API docs  http://127.0.0.1:8000/docs"
    assert database == "  Postgres  postgresql://here/app"
    assert prompt == "  SQL       make psql"

    environment |= {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}
    _, charts, traces, *_ = links("http://127.0.0.1:8000", environment)
    assert charts == "  Charts    http://127.0.0.1:4318/charts"
    assert traces == "  Traces    http://127.0.0.1:4318"


@pytest.mark.slow
def test_a_dead_copy_is_started_again_and_all_end_with_their_parent(
    make: subprocess.Popen[bytes],
) -> None:
    with stack(2, make.pid) as process:
        before = pids()
        assert before.keys() == {"haproxy", "app-1", "app-2"}
        until(lambda: "Table" in SAID.read_text())
        (docs,) = re.findall("API docs +(http[^ ]+)\n", SAID.read_text())
        with urlopen(docs, timeout=SECONDS):  # noqa: S310  # an error status would raise
            pass

        os.kill(before["app-2"], signal.SIGKILL)

        until(lambda: is_ready() and pids().get("app-2") not in {None, before["app-2"]})
        assert pids()["app-1"] == before["app-1"]
        running = children(process.pid)
        assert len(running) > len(before)  # PgBouncer too

        make.kill()
        make.wait()

        assert process.wait(timeout=SECONDS) == 0
        assert table() == {}
        assert not any(map(stack_status.is_alive, running))


@pytest.mark.slow
def test_nothing_outlives_the_command_when_it_is_killed(make: subprocess.Popen[bytes]) -> None:
    with stack(1, make.pid) as process:
        running = pids().values()

        process.kill()

        until(lambda: not any(map(stack_status.is_alive, running)))


@pytest.mark.slow
@pytest.mark.parametrize("copies", ["0", "51", "three"])
def test_an_invalid_number_of_copies_names_the_valid_ones(copies: str) -> None:
    started = run_python("-m", "dev.copies.stack", env={**os.environ, "COPIES": copies})

    assert started.returncode == 1
    assert started.stderr == (f"COPIES is {copies!r}, and must be 1 to 50: make stack COPIES=3\n")
