"""Each advance, planned by the real provider from a state that was applied on a local AWS."""

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from conftest import Render
from moto.server import ThreadedMotoServer
from test_deploy_aws import PLUGINS, needs_terraform

STATES = Path(__file__).with_name("aws-states")

OVERRIDE = """\
terraform {
  backend "local" {}
}
provider "aws" {
  max_retries = 2
}
"""

# What a plan may touch of what is there. All else is added.
MAY_CHANGE = {
    ("aws_db_instance.main", "update"),  # Its exported logs.
    ("aws_db_parameter_group.main", "update"),
    ("aws_appautoscaling_target.app", "update"),  # The fewest and the most copies.
    ("aws_ecs_task_definition.app", "replace"),  # A new revision; the old one stays.
    ("aws_ecs_task_definition.pgbouncer", "replace"),
    ("aws_ecs_service.pgbouncer", "update"),  # Rolls to the new revision.
}


class Secrets(BaseHTTPRequestHandler):
    """Secrets Manager, as far as a plan asks it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"RandomPassword": "drawn", "SecretString": "kept", "Name": "a", "ARN": "a"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def aws() -> Iterator[dict[str, str]]:
    moto = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    moto.start()
    secrets = ThreadingHTTPServer(("127.0.0.1", 0), partial(Secrets))
    Thread(target=secrets.serve_forever, daemon=True).start()
    _, port = moto.get_host_and_port()
    yield {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ENDPOINT_URL_SECRETS_MANAGER": f"http://127.0.0.1:{secrets.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "TF_CLI_CONFIG_FILE": "",
        "CHECKPOINT_DISABLE": "1",
    }
    secrets.shutdown()
    secrets.server_close()
    moto.stop()


def planned(project: Path, folder: Path, state: int, aws: dict[str, str]) -> list[dict[str, Any]]:
    for part in ("deploy", "environments"):
        shutil.copytree(project / part, folder / part)
    production = folder / "environments" / "production"
    (production / "local_override.tf").write_text(OVERRIDE)
    packed = (STATES / f"stage-{state}.json.gz").read_bytes()
    (production / "terraform.tfstate").write_bytes(gzip.decompress(packed))

    def terraform(*arguments: str) -> str:
        done = subprocess.run(
            ["terraform", *arguments],
            cwd=production,
            env=os.environ | aws,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    terraform("init", "-input=false", f"-plugin-dir={PLUGINS[0]}")
    terraform("plan", "-input=false", "-refresh=false", "-out=plan")
    return list(json.loads(terraform("show", "-json", "plan"))["resource_changes"])


def changes(plan: list[dict[str, Any]]) -> set[tuple[str, str]]:
    found = set()
    for one in plan:
        actions = one["change"]["actions"]
        if one["mode"] == "managed" and actions not in (["no-op"], ["create"]):
            what = "replace" if len(actions) == 2 else actions[0]
            found.add((one["address"].removeprefix("module.service."), what))
    return found


def created(plan: list[dict[str, Any]]) -> set[str]:
    return {one["type"] for one in plan if one["change"]["actions"] == ["create"]}


@needs_terraform
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "to"),
    [
        (1, {"stage": 4, "replica_routing": True}),
        (3, {"stage": 4}),
    ],
    ids=["1-to-4-with-replicas", "3-to-4"],
)
def test_an_advance_deletes_and_replaces_nothing_that_holds_data(
    render: Render, tmp_path: Path, aws: dict[str, str], stage: int, to: dict[str, Any]
) -> None:
    plan = planned(render(to), tmp_path, stage, aws)

    assert changes(plan) <= MAY_CHANGE
    assert created(plan) >= {"aws_elasticache_replication_group", "aws_s3_bucket"}
