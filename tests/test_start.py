"""Commands that FastAPI users type in a generated repo, and its start page in a real browser."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from browsing import chromium
from conftest import Render
from serving import free_port, make_dev, run

START_IT = "On a laptop, leave `make dev` running in another shell, and try again."


@pytest.fixture
def project(render: Render, tmp_path: Path) -> Path:
    shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    return tmp_path / "shop"


def as_typed(*command: str) -> tuple[str, ...]:
    return ("uv", "run", "--quiet", *command)


def serves(project: Path, command: str, path: str = "/live") -> bytes:
    """The app's answer at `path`. `command` ends with the option for the port."""
    port = free_port()
    with project.with_suffix(".served").open("w+") as log:
        server = subprocess.Popen(
            as_typed(*command.split(), str(port)),
            cwd=project,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not (answer := answers(f"http://127.0.0.1:{port}{path}")):
                said = Path(log.name).read_text(encoding="utf-8")
                assert server.poll() is None, said
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
        finally:
            os.killpg(server.pid, signal.SIGINT)
            server.wait(timeout=300)
    return answer


@pytest.mark.slow
@pytest.mark.parametrize("command", ["uvicorn app.main:app --port", "fastapi dev --port"])
def test_the_app_starts_as_people_of_fastapi_expect(project: Path, command: str) -> None:
    assert serves(project, f"python -m dev {command}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "commands"),
    [
        (1, ("uvicorn app.main:app --port", "fastapi dev --port")),
        (4, ("uvicorn app.main:app --port",)),
    ],
)
def test_commands_in_a_second_shell_use_the_servers_of_make_dev(
    render: Render, tmp_path: Path, stage: int, commands: tuple[str, ...]
) -> None:
    project = tmp_path / "shop"
    shutil.copytree(render({"stage": stage, "replica_routing": stage > 1}), project)

    with make_dev(project, free_port()) as url:
        seeded = answers(f"{url}/products")
        assert b"Walnut desk lamp" in seeded
        for command in commands:
            assert serves(project, command, "/products") == seeded
        for command, said in (
            ("alembic upgrade head", ""),
            ("alembic current", "0001 (head)"),
            ("python -m app.accounts.unlock staff@example.com", "can log in again"),
        ):
            done = run(*as_typed(*command.split()), within=project)
            assert (done.returncode, said in done.stdout) == (0, True), done.stdout + done.stderr

    done = run(*as_typed("alembic", "current"), within=project)
    assert (done.returncode, START_IT in done.stderr) == (1, True), done.stderr


@pytest.mark.slow
def test_make_dev_has_the_limits_of_production(project: Path) -> None:
    too_many = {f"header-{n}": "x" for n in range(201)}
    with make_dev(project, free_port()) as url, pytest.raises(HTTPError, match="431"):
        urlopen(Request(f"{url}/live", headers=too_many))


@pytest.mark.slow
def test_after_make_dev_was_killed_no_command_uses_its_variables(project: Path) -> None:
    words = as_typed("python", "-m", "dev", "sh", "-c", "echo ready; sleep 600")
    lender = subprocess.Popen(
        words, cwd=project, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert lender.stdout
    assert lender.stdout.readline() == "ready\n"
    os.killpg(lender.pid, signal.SIGKILL)
    lender.communicate()

    done = run(*as_typed("alembic", "current"), within=project)

    assert (project / ".dev/environment.json").exists()
    assert (done.returncode, START_IT in done.stderr) == (1, True), done.stderr


def answers(url: str) -> bytes:
    """The body of the answer. It is empty while the app does not answer."""
    try:
        with urlopen(url, timeout=5) as answer:
            body: bytes = answer.read()
            return body
    except OSError:
        return b""


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
    assert START_IT in done.stdout + done.stderr


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
        assert "It has not run yet." in start
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
            places.append(places[-1].removesuffix("charts"))
            page.goes_to(places[-1])
            page.waits_for("document.querySelector('.row') !== null")
            # The page draws its buttons again, at a click and with each new trace.
            page.finds("document.querySelector('.row').focus(); document.activeElement.click()")
            assert page.finds("document.activeElement.className") == "row"
        for place in places:
            for scheme, brightness in (("light", 250), ("dark", 30)):
                page.looks_like(width=360, height=740, scheme=scheme)
                page.goes_to(place)
                assert page.finds("document.documentElement.scrollWidth") == 360
                ground = page.finds("getComputedStyle(document.body).backgroundColor")
                assert abs(int(re.findall(r"\d+", ground)[0]) - brightness) < 15, ground
        if stage > 1:
            page.waits_for("document.querySelector('.track') !== null")
            assert page.finds("document.querySelector('.track').offsetWidth") > 100
        page.goes_to(products)
        link = page.finds("getComputedStyle(document.querySelector('.breadcrumb a')).color")
        assert sum(map(int, re.findall(r"\d+", link))) > 450, f"dark on dark: {link}"
