# Rung's file: advancing to another stage may change it.
"""`make dev` and the other commands that `python -m dev` runs."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen
from uuid import uuid4

import pytest

from dev import ports, postgres, serve, supervisor
from dev.pytest_plugin import Services
from tests.infra.conftest import run_python
from tests.infra.failing_over import Server

SECONDS = 300

# `python -m dev`, but on the services of the tests.
RUN = """
import os, sys
from dev import __main__ as dev
dev.SECONDS_TO_END = 2
sys.exit(dev.run(sys.argv[1:], dict(os.environ)))
"""

COUNTS = """
import signal, sys, time
asked = []
signal.signal(signal.SIGTERM, lambda *_: asked.append("asked"))
print("ready", flush=True)
while not asked:
    time.sleep(0.01)
time.sleep(1)
sys.exit(len(asked))
"""

EMPTY_APP = """
from dev import serve

def create_app():
    serve.end_with_reloader()
    return answer

async def answer(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})
"""


@contextmanager
def running(command: Sequence[str], port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Starts it in a new process group, as a terminal starts `make`."""
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *command],
        cwd=postgres.REPOSITORY,
        env={**os.environ, "PORT": str(port)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if is_there(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def is_there(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):  # macOS: only zombies are left
        return False
    return True


def until_it_serves(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        try:
            with urlopen(f"http://127.0.0.1:{port}/live", timeout=5):
                return
        except OSError:
            time.sleep(0.1)


def until_it_ends(process: subprocess.Popen[str]) -> None:
    """Waits for the process and for all that it started."""
    process.wait(timeout=SECONDS)
    deadline = time.monotonic() + SECONDS
    while is_there(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        (["frob"], 127, "Cannot run 'frob': there is no such program here.\n"),
        (["./README.md"], 127, "Cannot run './README.md': there is no such program here.\n"),
        ([], 1, "Say what to run: python -m dev COMMAND…\n"),
    ],
)
def test_a_command_that_cannot_run_is_refused_with_a_reason(
    command: list[str], status: int, message: str
) -> None:
    done = run_python("-m", "dev", *command)

    assert (done.returncode, done.stderr) == (status, message)


@pytest.mark.slow
def test_of_many_stop_signals_a_command_gets_one() -> None:
    with running([sys.executable, "-c", COUNTS]) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        for _ in range(20):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.02)

        assert process.wait(timeout=SECONDS) == 1


@pytest.mark.slow
def test_a_reloader_that_does_not_end_is_killed_with_the_app(services: Services) -> None:
    port = ports.unused()
    serve = ["sh", "-c", 'echo $$; exec "$0" -m dev.serve', sys.executable]
    with running(serve, port) as process:
        assert process.stdout
        reloader = int(process.stdout.readline())
        until_it_serves(process, port)
        os.kill(reloader, signal.SIGSTOP)

        process.send_signal(signal.SIGTERM)

        until_it_ends(process)
        with socket.socket() as client:
            assert client.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.slow
def test_everything_ends_when_its_group_gets_many_stop_signals(tmp_path: Path) -> None:
    (tmp_path / "empty.py").write_text(EMPTY_APP)
    folder = str(tmp_path)
    uvicorn = [
        *(sys.executable, "-m", "uvicorn", "empty:create_app", "--factory", "--app-dir", folder),
        *("--reload", "--reload-dir", folder, "--log-level", "warning"),
    ]
    with ExitStack() as stack:
        started = {}
        for _ in range(8):
            port = ports.unused()
            started[port] = stack.enter_context(running([*uvicorn, "--port", str(port)]))
        for port, process in started.items():
            until_it_serves(process, port)

        for process in started.values():
            # `timeout` signals make and its group, and uv passes its own signal on.
            for _ in range(3):
                os.killpg(process.pid, signal.SIGTERM)
                process.send_signal(signal.SIGTERM)

        for process in started.values():
            until_it_ends(process)


@pytest.mark.slow
def test_postgres_starts_when_its_old_pid_file_has_the_number_of_another_postgres() -> None:
    """As after a reboot, when the server of another repo has started first."""
    with ExitStack() as stack:
        ours, another = Server(), Server()
        stack.callback(ours.remove)
        stack.callback(another.remove)
        ours.stop()
        ours.pid_file.write_text(another.pid_file.read_text())

        ours.start()

        assert asyncio.run(ours.run("SHOW port")) == str(ours.port)


def test_the_log_of_a_server_does_not_grow_for_years(tmp_path: Path) -> None:
    log, old = tmp_path / "log", tmp_path / "log.old"

    def say(word: str) -> None:
        with supervisor.shared(tmp_path, lambda: start(word), remove=False):
            end = time.monotonic() + 60
            while word not in log.read_text() and time.monotonic() < end:
                time.sleep(0.05)  # at the end of this block the command is ended

    def start(word: str) -> subprocess.Popen[bytes]:
        return supervisor.supervise(
            ["echo", word], tmp_path, env=os.environ, stop_with=signal.SIGTERM
        )

    say("first")
    say("second")
    assert log.read_text() == "first\nsecond\n"

    os.truncate(log, supervisor.MOST_LOG_BYTES + 1)  # sparse: no disk is used
    say("third")
    assert log.read_text() == "third\n"
    assert old.stat().st_size == supervisor.MOST_LOG_BYTES + 1


def test_other_users_of_this_machine_do_not_see_a_servers_password(tmp_path: Path) -> None:
    def start() -> subprocess.Popen[bytes]:
        started.append(
            supervisor.supervise(
                ["echo", "hunter2"], tmp_path, env=os.environ, stop_with=signal.SIGTERM
            )
        )
        return started[0]

    started: list[subprocess.Popen[bytes]] = []
    with supervisor.shared(tmp_path, start, remove=False):
        started[0].wait()

    assert "hunter2" not in str(started[0].args)
    assert (tmp_path / "log").read_text() == "hunter2\n"


def test_other_users_of_this_machine_do_not_see_the_password_of_psql(empty_database: str) -> None:
    typed = "\\! ps -o args= -p $PPID\nSELECT 6 * 7 AS answer;\n"

    done = run_python("-m", "dev.psql", input=typed, env=os.environ)

    assert "psql postgresql://" in done.stdout
    assert "42" in done.stdout
    assert str(urlsplit(empty_database).password) not in done.stdout


def test_a_port_where_another_program_answers_localhost_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    try:
        # A port that is free at ::1 alone may be another program's at 127.0.0.1.
        other = socket.create_server(("::1", ports.unused()), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    with other:
        address = other.getsockname()
        found = [(socket.AF_INET6, socket.SOCK_STREAM, 0, "", address)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)

        with pytest.raises(SystemExit, match="another program answers on localhost"):
            serve.refuse_unusable_port(str(address[1]))

    serve.refuse_unusable_port(str(address[1]))


@pytest.mark.slow
@pytest.mark.usefixtures("empty_database")
def test_a_wrong_environment_stops_make_dev_before_it_migrates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SESSION_IDLE", "for ever")
    monkeypatch.setenv("PORT", str(ports.unused()))
    monkeypatch.setenv("SECRET_KEY", "the-same-secret-key-for-every-test")
    monkeypatch.setenv("FILES_FOLDER", str(tmp_path))

    started = run_python("-m", "dev.serve", timeout=SECONDS)

    assert started.returncode == 1
    assert started.stderr.startswith("Missing or wrong in the environment:\n  SESSION_IDLE: ")
    assert started.stdout == ""


def test_trigrams_know_the_letters_of_each_language() -> None:
    """Otherwise an index of pg_trgm finds nothing but ASCII, and each search reads the table."""

    async def similarity(url: str) -> float:
        async with postgres.connected(url) as connection:
            await connection.execute("CREATE EXTENSION pg_trgm")
            found: float = await connection.fetchval("SELECT word_similarity('길동', '홍길동 été')")
            return found

    with postgres.temporary_server(f"rung-test-{uuid4().hex}") as url:
        assert asyncio.run(similarity(url)) > 0
