"""The variables of the app's task, as the provider has registered it on a local AWS."""

import gzip
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from conftest import Render
from serving import free_port
from test_deploy_aws import NOT_OF_THE_APP

STATES = Path(__file__).with_name("aws-states")
STAGES = [1, 2, 3, 4]
PATIENCE = 300

# As Secrets Manager draws them.
SECRETS = {"PGPASSWORD": "hdT4Kd0vQ8rTz1", "SECRET_KEY": "Vb3nQ8rTz1LmX5cWk9JpYs2DfGh7Aa4E"}


def resources(stage: int) -> list[dict[str, Any]]:
    state = json.loads(gzip.decompress((STATES / f"stage-{stage}.json.gz").read_bytes()))
    return list(state["resources"])


def variables(stage: int) -> dict[str, str]:
    for resource in resources(stage):
        if (resource["type"], resource["name"]) == ("aws_ecs_task_definition", "app"):
            written = resource["instances"][0]["attributes"]["container_definitions"]
            app = next(one for one in json.loads(written) if one["name"] == "app")
    plain = {one["name"]: one["value"] for one in app["environment"]}
    assert {one["name"] for one in app["secrets"]} == set(SECRETS)
    return plain | SECRETS


@pytest.mark.parametrize("stage", STAGES)
def test_each_variable_is_a_setting_of_the_app_of_that_stage(render: Render, stage: int) -> None:
    example = (render({"stage": stage}) / "deploy" / "env.example").read_text()
    known = set(re.findall(r"^# ([A-Z_0-9]+)=", example, re.MULTILINE))

    assert set(variables(stage)) - known == NOT_OF_THE_APP


@pytest.mark.parametrize("stage", STAGES)
def test_the_state_holds_no_secret(stage: int) -> None:
    held = {
        (resource["type"], name): instance["attributes"][name]
        for resource in resources(stage)
        for instance in resource["instances"]
        for name in ("password", "password_wo", "secret_string", "secret_string_wo", "auth_token")
        if name in instance["attributes"]
    }

    assert ("aws_db_instance", "password") in held
    assert ("aws_secretsmanager_secret_version", "secret_string") in held
    assert not [where for where, value in held.items() if value]


@contextmanager
def started(python: Path, project: Path, given: dict[str, str]) -> Iterator[str]:
    """The app with these variables and no others. Its servers are away, so it waits for them."""
    port = str(free_port())
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    process = subprocess.Popen(
        [python, "-m", "app.infra.serve"],
        cwd=project,
        env=kept | given | {"PORT": port},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield f"http://127.0.0.1:{port}/live"
    finally:
        process.terminate()
        process.communicate()


def answers(url: str) -> bool:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            with urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except URLError:
            time.sleep(0.1)
    return False


@pytest.mark.slow
def test_the_variables_start_the_app_of_each_stage(render: Render, tmp_path: Path) -> None:
    projects = {
        stage: shutil.copytree(render({"stage": stage}), tmp_path / f"stage-{stage}")
        for stage in STAGES
    }
    # The packages of stage 4 are those of all stages.
    sync = ["sh", "dev/uv", "sync", "--quiet", "--no-default-groups", "--group", "infra"]
    subprocess.run(sync, cwd=projects[4], check=True)
    python = projects[4] / ".venv" / "bin" / "python"
    with ExitStack() as running:
        urls = [
            running.enter_context(
                started(python, projects[stage], variables(stage) | {"FILES_FOLDER": str(tmp_path)})
            )
            for stage in STAGES
        ]
        assert [answers(url) for url in urls] == [True, True, True, True]
