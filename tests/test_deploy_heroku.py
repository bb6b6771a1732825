"""The generated repo's files for Heroku, against the app that they are for."""

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from variants import VARIANTS, variant_name

# Heroku's own numbers.
CONNECTIONS_OF_ESSENTIAL = 20
ROUTER_KEEPS_IDLE_SECONDS = 90
SIGKILL_AFTER_SECONDS = 30


@pytest.fixture
def shop(render: Render) -> Path:
    return render({"stage": 1})


def manifest(project: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / "app.json").read_text(encoding="utf-8"))
    return found


def known_settings(project: Path) -> set[str]:
    text = "".join((project / name).read_text() for name in (".env.example", "deploy/env.example"))
    return set(re.findall(r"^# ([A-Z_0-9]+)=", text, re.MULTILINE))


def by_hand(project: Path) -> dict[str, str]:
    """The settings that the page makes in production."""
    page = (project / "docs/guide/heroku.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^heroku config:set (SECRET_KEY.*?[^\\])$", page, re.M | re.S)
    return dict(re.findall(r"([A-Z_]+)='?([^\s']+)", command))


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_each_variable_in_app_json_is_a_setting_of_its_stage(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    assert manifest(project)["env"].keys() <= known_settings(project)
    assert by_hand(project).keys() <= known_settings(project)


def test_production_has_the_same_variables_as_review_apps(shop: Path) -> None:
    here, there = manifest(shop)["env"], by_hand(shop)
    assert there.keys() - here.keys() == {"PUBLIC_URL"}
    assert here.keys() <= there.keys()
    assert {name: there[name] for name in here if "value" in here[name]} == {
        name: said["value"] for name, said in here.items() if "value" in said
    }
    assert here["SECRET_KEY"]["generator"] == "secret"


def test_the_pools_of_old_and_new_dynos_fit_the_plan(shop: Path) -> None:
    app = manifest(shop)
    pools = int(app["env"]["DATABASE_READ_POOL"]["value"])
    pools += int(app["env"]["DATABASE_WRITE_POOL"]["value"])
    dynos = app["formation"]["web"]["quantity"]
    # Also the migration, and somebody with psql.
    assert 2 * dynos * pools + 2 <= CONNECTIONS_OF_ESSENTIAL
    [addon] = app["addons"]
    assert addon == {"plan": "heroku-postgresql:essential-0", "options": {"version": "18"}}
    # Migrations refuse an older one.
    assert "server_version_info or ()) < (18,)" in (shop / "migrations/env.py").read_text()


def test_the_app_keeps_connections_longer_and_ends_sooner_than_heroku(shop: Path) -> None:
    serve = (shop / "app/infra/serve.py").read_text()
    [keep_alive] = re.findall(r'"KEEP_ALIVE_SECONDS", default="(\d+)"', serve)
    [graceful] = re.findall(r"timeout_graceful_shutdown=(\d+)", serve)
    assert int(keep_alive) > ROUTER_KEEPS_IDLE_SECONDS
    assert int(graceful) < SIGKILL_AFTER_SECONDS


def test_dynos_run_the_same_commands_as_the_image(shop: Path) -> None:
    processes = dict(
        line.split(": ", maxsplit=1) for line in (shop / "Procfile").read_text().splitlines()
    )
    dockerfile = (shop / "Dockerfile").read_text()
    assert processes == {
        "release": "sh deploy/heroku-release.sh",
        "web": " ".join(json.loads(dockerfile.rsplit("CMD ", maxsplit=1)[1])),
    }
    script = (shop / "deploy/heroku-release.sh").read_text()
    assert script.endswith("\nexec ${MIGRATE:-alembic upgrade head}\n")
    module = manifest(shop)["environments"]["review"]["scripts"]["postdeploy"].split()[-1]
    assert (shop / f"{module.replace('.', '/')}.py").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS, ids=variant_name)
def test_the_release_script_is_there_as_long_as_the_team_s_procfile_names_it(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    for script in re.findall(r"\bsh (\S+)", (project / "Procfile").read_text()):
        assert (project / script).is_file()


def test_the_build_installs_the_packages_that_the_image_has(shop: Path) -> None:
    hook = shop / "bin/post_compile"
    assert hook.stat().st_mode & stat.S_IXUSR
    [groups] = re.findall(r"uv sync --frozen ([\w -]*\w)", (shop / "Dockerfile").read_text())
    assert f"exec uv sync --locked {groups} --compile-bytecode\n" in hook.read_text()


def test_any_name_of_a_service_makes_an_app_json(render: Render) -> None:
    name = 'Ann\'s "Shop" & <Söhne> \\ Co'
    project = render({"stage": 1, "project_name": name, "project_slug": "shop"})
    assert manifest(project)["name"] == name
    assert manifest(project)["description"] == f"{name}, a backend"


def released(project: Path, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """With a Python that finds no package of stage 3, and an alembic that says that it ran."""
    for name, script in (
        ("python", '[ -n "$MISSING" ] || exit 0; echo \'Traceback\'; echo "$MISSING"; exit 1'),
        ("alembic", 'echo "alembic $*"'),
    ):
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return subprocess.run(
        ["sh", "deploy/heroku-release.sh"],
        cwd=project,
        env={"PATH": f"{folder}:{os.environ['PATH']}", "MISSING": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("environment", [{"FILES_FOLDER": "/tmp"}, {"FILES_STORE": "s3"}])  # noqa: S108
def test_a_release_migrates(shop: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    done = released(shop, tmp_path, **environment)
    assert (done.returncode, done.stdout) == (0, "alembic upgrade head\n")


def test_a_release_migrates_the_databases_of_modules_too(shop: Path, tmp_path: Path) -> None:
    done = released(shop, tmp_path, FILES_STORE="s3", MIGRATE="alembic of each database")
    assert (done.returncode, done.stdout) == (0, "alembic of each database\n")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "Heroku keeps no files"),
        ({"FILES_STORE": "read-both"}, "Heroku keeps no files"),
        (
            {"FILES_FOLDER": "/tmp", "MISSING": "ModuleNotFoundError: No module named 'redis'"},  # noqa: S108
            "The app cannot start here: ModuleNotFoundError: No module named 'redis'.",
        ),
    ],
)
def test_an_app_that_cannot_run_on_heroku_is_refused_before_the_migration(
    shop: Path, tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    done = released(shop, tmp_path, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1
