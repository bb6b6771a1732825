"""What people of FastAPI type in a generated repo, and its start page in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from browsing import chromium
from conftest import Render
from serving import free_port, make_dev, run


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
    assert "On a laptop, put `uv run python -m dev` before it." in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 4])
def test_the_start_page_and_what_it_leads_to_work_in_a_browser_without_the_internet(
    render: Render, tmp_path: Path, stage: int
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": stage, "replica_routing": stage > 1}), project)
    with chromium(tmp_path / "profile") as page, make_dev(project, free_port()) as url:
        page.goes_to(f"{url}/")
        start = page.finds("document.body.innerText")
        assert f"Stage {stage}: " in start
        assert "Staff: staff@example.com, password" in start
        assert "It has not looked yet." in start
        page.goes_to(f"{url}/docs")
        # Swagger UI has written this.
        page.waits_for("document.body.innerText.includes('List products, newest first')")
        products = f"{url}/_dev/data/products/list"
        page.goes_to(products)
        page.waits_for("document.body.innerText.includes('Walnut desk lamp')")
        places = [f"{url}/", products]
        if stage > 1:
            page.goes_to(places[0])
            places.append(page.finds("document.querySelector('iframe').src"))
            page.goes_to(places[-1])
            page.waits_for("document.querySelectorAll('path').length > 0")
        for place in places:
            for scheme, brightness in (("light", 250), ("dark", 30)):
                page.looks_like(width=360, height=740, scheme=scheme)
                page.goes_to(place)
                assert page.finds("document.documentElement.scrollWidth") == 360
                ground = page.finds("getComputedStyle(document.body).backgroundColor")
                assert abs(int(re.findall(r"\d+", ground)[0]) - brightness) < 15, ground
