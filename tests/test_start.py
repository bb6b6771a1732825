"""What people of FastAPI type in a generated repo, and its start page in a real browser."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from conftest import Render
from serving import free_port, make_dev, run

# Nothing but this machine, so a page that loads a script from elsewhere stays empty.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    return tmp_path / "shop"


def as_typed(*command: str) -> tuple[str, ...]:
    return ("uv", "run", "--quiet", *command)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["uvicorn app.main:app --port", "fastapi dev --port"])
def test_the_app_starts_as_people_of_fastapi_expect(project: Path, command: str) -> None:
    port = free_port()
    words = as_typed("python", "-m", "dev", *command.split(), str(port))
    with (project / "log").open("w") as log:
        server = subprocess.Popen(
            words, cwd=project, stdout=log, stderr=log, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(f"http://127.0.0.1:{port}/live"):
            said = (project / "log").read_text()
            assert server.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.2)
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(timeout=60)


def answers(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pytest -q tests/test_errors.py", "passed"),
        ("python -m dev alembic upgrade head", "Applied 0001: the shop"),
    ],
)
def test_commands_work_as_people_of_fastapi_expect(project: Path, command: str, said: str) -> None:
    done = run(*as_typed(*command.split()), within=project)
    assert (done.returncode, said in done.stdout) == (0, True), done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["alembic upgrade head", "uvicorn app.main:app"])
def test_without_a_database_the_command_to_type_is_named(project: Path, command: str) -> None:
    done = run(*as_typed(*command.split()), within=project)
    assert done.returncode != 0
    assert "On a laptop, `python -m dev COMMAND` gives the rest." in done.stdout + done.stderr


@pytest.mark.slow
def test_the_start_page_and_the_documentation_work_in_a_browser_without_the_internet(
    project: Path,
) -> None:
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    if chromium is None and "CI" not in os.environ:
        pytest.skip("there is no Chromium here")
    assert chromium
    with make_dev(project, free_port()) as url:
        start = dom(chromium, f"{url}/")
        documented = dom(chromium, f"{url}/docs")
    assert "Stage 1: foundation" in start
    assert "Staff: staff@example.com, password" in start
    # Swagger UI has written this.
    assert "List products, newest first" in documented


def dom(chromium: str, url: str) -> str:
    flags = ("--headless", "--no-sandbox", "--disable-gpu", OFFLINE, "--virtual-time-budget=20000")
    done = subprocess.run(
        [chromium, *flags, "--dump-dom", url],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout
