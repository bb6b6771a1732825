"""Applies each stage on a local AWS with the real provider, and records the states for the tests.

    uv run --with ministack python scripts/record_aws_states.py PLUGINS

It takes ten minutes. PLUGINS is a folder with provider aws 5.100, laid out as for `-plugin-dir`.
tests/test_deploy_advance.py plans the next stage from each state, and an upgrade of the template
from older-stage-4.json.gz: copy stage-4.json.gz there before you record.
"""

import gzip
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from copier import run_copy

REPO = Path(__file__).parents[1]
STATES = REPO / "tests" / "aws-states"
STAGES = (1, 2, 3, 4)

# Ministack has no Application Auto Scaling, and no private namespace of Service Discovery. Moto has
# both, but asks its own ECS for the service, and knows no tags of scaling targets.
ELSEWHERE = ("APPLICATION_AUTO_SCALING", "SERVICEDISCOVERY", "ROUTE_53")
MOTO = """
import sys
from moto.applicationautoscaling.models import ApplicationAutoscalingBackend
from moto.applicationautoscaling.responses import ApplicationAutoScalingResponse
from moto.server import main

ApplicationAutoscalingBackend._ecs_service_exists_for_target = lambda self, r_id: True
ApplicationAutoScalingResponse.tag_resource = lambda self: "{}"
ApplicationAutoScalingResponse.list_tags_for_resource = lambda self: '{"Tags": {}}'
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""

# AWS answers with these; ministack forgets them, and a plan would then change or replace.
FORGOTTEN: dict[str, dict[str, Any]] = {
    "aws_ecs_service": {"availability_zone_rebalancing": "DISABLED"},
    "aws_lb_target_group": {"protocol_version": "HTTP1"},
}

OVERRIDE = """\
terraform {
  backend "local" {}
}
provider "aws" {
  max_retries       = 2
  s3_use_path_style = true
}
"""


def main() -> None:
    plugins = sys.argv[1]
    STATES.mkdir(exist_ok=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        moto = stack.enter_context(served([sys.executable, "-c", MOTO, "{port}"], {}))
        ministack = stack.enter_context(served(["ministack"], {"BIND_HOST": "127.0.0.1"}))
        environment = os.environ | {f"AWS_ENDPOINT_URL_{one}": moto for one in ELSEWHERE}
        environment |= {"AWS_ENDPOINT_URL": ministack, "TF_CLI_CONFIG_FILE": ""}
        environment |= {"AWS_ACCESS_KEY_ID": "123456789012", "AWS_SECRET_ACCESS_KEY": "test"}
        for stage in STAGES:
            print(f"Stage {stage}", flush=True)
            record(folder, stage, environment, plugins)


@contextmanager
def served(command: list[str], environment: dict[str, str]) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = [word.format(port=port) if word == "{port}" else word for word in command]
    process = subprocess.Popen(
        words, env=os.environ | environment | {"GATEWAY_PORT": port}, stdout=subprocess.DEVNULL
    )
    try:
        while process.poll() is None:
            with socket.socket() as tried:
                if tried.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def record(folder: Path, stage: int, environment: dict[str, str], plugins: str) -> None:
    rendered = folder / f"stage-{stage}"
    run_copy(str(REPO), rendered, data={"stage": stage}, defaults=True, vcs_ref="HEAD", quiet=True)
    repo = folder / "repo"
    shutil.rmtree(repo / "deploy", ignore_errors=True)
    for part in ("deploy", "environments"):
        shutil.copytree(rendered / part, repo / part, dirs_exist_ok=True)
    production = repo / "environments" / "production"
    (production / "local_override.tf").write_text(OVERRIDE)
    # A refresh would read what ministack forgets, and replace the load balancer's target group.
    apply = ["apply", "-auto-approve", "-refresh=false"]
    for command in (["init", f"-plugin-dir={plugins}"], apply):
        subprocess.run(
            ["terraform", *command, "-input=false"], cwd=production, env=environment, check=True
        )
    state = json.loads((production / "terraform.tfstate").read_text())
    for resource in state["resources"]:
        for instance in resource["instances"]:
            instance["attributes"] |= FORGOTTEN.get(resource["type"], {})
    written = json.dumps(state).encode()
    (production / "terraform.tfstate").write_bytes(written)
    (STATES / f"stage-{stage}.json.gz").write_bytes(gzip.compress(written, mtime=0))


if __name__ == "__main__":
    main()
