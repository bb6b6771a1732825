"""Advances and upgrades, planned by the real provider from states applied on a local AWS."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from copy import deepcopy
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
SCHEDULED = "aws_appautoscaling_scheduled_action"
MORNING = '  scheduled_copies = { morning = { schedule = "cron(0 7 ? * MON-FRI *)", least = 6 } }\n'
VALKEY, BUCKET = "aws_elasticache_replication_group", "aws_s3_bucket"
DATABASE = ("aws_db_instance", "main")

OVERRIDE = """\
terraform {
  backend "local" {}
}
provider "aws" {
  max_retries = 2
}
"""

# The existing resources that a plan may change. All other changes add something.
MAY_CHANGE = {
    ("aws_db_instance.main", "update"),  # Its exported logs.
    ("aws_db_parameter_group.main", "update"),
    ("aws_appautoscaling_target.app", "update"),  # The fewest and the most copies.
    # Since the states were recorded, deleted files and the collector's logs end, and S3 answers a
    # page of another origin that the app has redirected.
    ("aws_s3_bucket_cors_configuration.files", "update"),
    ("aws_s3_bucket_lifecycle_configuration.files", "update"),
    ("aws_iam_role_policy.app_telemetry", "update"),
    ("aws_ecs_task_definition.app", "replace"),  # A new revision; the old one stays.
    # Since the states were recorded, PgBouncer's task ends its transactions, and names the version
    # of its password. After they are recorded again, an advance changes neither of these.
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


def recorded(stage: int, *, replica: bool = False, older: bool = False) -> bytes:
    file = STATES / f"{'older-' if older else ''}stage-{stage}.json.gz"
    state = json.loads(gzip.decompress(file.read_bytes()))
    if replica:
        state["resources"].append(replica_of(state["resources"]))
    return json.dumps(state).encode()


def replica_of(resources: list[dict[str, Any]]) -> dict[str, Any]:
    """No local AWS finishes a replica, so it is written as the provider would: from the primary."""
    [primary] = [one for one in resources if (one["type"], one["name"]) == DATABASE]
    replica: dict[str, Any] = deepcopy(primary) | {"name": "replica", "each": "list"}
    [instance] = replica["instances"]
    identifier = instance["attributes"]["identifier"]
    instance |= {"index_key": 0}
    instance["attributes"] |= {
        "identifier": f"{identifier}-replica-1",
        "replicate_source_db": identifier,
        "password_wo_version": None,
        "deletion_protection": False,
        "skip_final_snapshot": True,
        "final_snapshot_identifier": None,
        "multi_az": False,
    }
    return replica


def planned(
    project: Path, folder: Path, state: bytes, aws: dict[str, str], given: str = ""
) -> list[dict[str, Any]]:
    for part in ("deploy", "environments"):
        shutil.copytree(project / part, folder / part)
    production = folder / "environments" / "production"
    (production / "local_override.tf").write_text(OVERRIDE)
    (production / "terraform.tfstate").write_bytes(state)
    main, image = production / "main.tf", "  image           = var.image\n"
    assert image in main.read_text()
    main.write_text(main.read_text().replace(image, image + given))

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


def refused(project: Path, plan: list[dict[str, Any]]) -> str:
    """By the guard of `make deploy`."""
    return subprocess.run(
        [sys.executable, "-c", GUARD],
        cwd=project,
        input=json.dumps({"resource_changes": plan}),
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


GUARD = (
    "import json, sys; from dev.deploy.guard import losses; print(*losses(json.load(sys.stdin)))"
)


@needs_terraform
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "to", "added"),
    [
        (1, {"stage": 4, "replica_routing": True, "module_databases": True}, {VALKEY, BUCKET}),
        (3, {"stage": 4}, {VALKEY, BUCKET}),
        (1, {"stage": 2}, {"aws_service_discovery_service"}),
        (1, {"stage": 2, "pooler": "rds_proxy"}, {"aws_db_proxy"}),
    ],
    ids=[
        "1-to-4-with-all-options",
        "3-to-4",
        "1-to-2",
        "1-to-2-with-rds-proxy",
    ],
)
def test_an_advance_deletes_and_replaces_nothing_that_holds_data(
    render: Render,
    tmp_path: Path,
    aws: dict[str, str],
    stage: int,
    to: dict[str, Any],
    added: set[str],
) -> None:
    project = render(to)

    plan = planned(project, tmp_path, recorded(stage), aws)

    assert changes(plan) <= MAY_CHANGE
    assert created(plan) >= added
    assert SCHEDULED not in created(plan)
    # No module is named yet, so none has a server.
    assert [one["address"] for one in plan if one.get("name", "").startswith("module")] == []
    assert refused(project, plan) == "\n"


def test_a_secret_that_others_make_again_may_go(render: Render) -> None:
    def lost(name: str) -> str:
        change = {"actions": ["delete"], "before": {}}
        secret = {"type": "aws_secretsmanager_secret", "name": name, "change": change}
        return refused(render({"stage": 1}), [secret | {"address": name}])

    for name in ("module_url", "module_replica_urls", "rds_proxy"):
        assert lost(name) == "\n"
    assert "module holds a key" in lost("module")


@needs_terraform
@pytest.mark.slow
def test_a_module_gets_a_postgres_that_no_later_plan_may_delete(
    render: Render, tmp_path: Path, aws: dict[str, str]
) -> None:
    project = render({"stage": 4, "replica_routing": True, "module_databases": True})
    given = '  module_databases = ["orders"]\n  module_databases_in_use = ["orders"]\n'
    given += "  module_replicas = { orders = 1 }\n"

    plan = planned(project, tmp_path, recorded(4), aws, given)

    # The tasks may read the URL and the password, and PgBouncer gets two names more.
    assert changes(plan) <= MAY_CHANGE | {
        ("aws_iam_role_policy.start_secrets", "update"),
        ("aws_ecs_task_definition.pgbouncer", "replace"),
        ("aws_ecs_service.pgbouncer", "update"),
    }
    assert refused(project, plan) == "\n"
    named = {one["address"]: one["change"] for one in plan}
    main = named["module.service.aws_db_parameter_group.main"]["after"]["parameter"]
    own = named['module.service.aws_db_parameter_group.module["orders"]']["after"]["parameter"]
    logical = {
        "name": "rds.logical_replication",
        "value": "1",
        "apply_method": "pending-reboot",
    }
    assert logical in main
    assert logical in own
    server = named['module.service.aws_db_instance.module["orders"]']["after"]
    assert (server["db_name"], server["deletion_protection"]) == ("orders", True)
    [replica] = [one for one in plan if one["name"] == "module_replica"]
    planned_replica = replica["change"]["after"]
    assert planned_replica["identifier"] == f"{server['identifier']}-replica-1"
    assert not planned_replica["deletion_protection"]
    # Its name is taken out of the list.
    of_modules = [one for one in plan if one.get("name", "").startswith("module")]
    for one in of_modules:
        one["change"]["actions"] = ["delete"]
    said = refused(project, of_modules)
    assert 'aws_db_instance.module["orders"] holds rows and would be destroyed' in said
    assert 'aws_secretsmanager_secret.module["orders"] holds a key' in said
    assert "module_url" not in said
    # A replica holds nothing that its primary does not.
    replica["change"]["before"] = {"replicate_source_db": server["identifier"]}
    assert "module_replica" not in refused(project, of_modules)


@needs_terraform
@pytest.mark.slow
def test_a_module_may_get_its_postgres_in_the_plan_that_brings_rds_proxy(
    render: Render, tmp_path: Path, aws: dict[str, str]
) -> None:
    project = render({"stage": 4, "module_databases": True, "pooler": "rds_proxy"})
    given = '  module_databases = ["orders"]\n  module_databases_in_use = ["orders"]\n'

    plan = planned(project, tmp_path, recorded(4), aws, given)

    deleted = {name for name, what in changes(plan) if what == "delete"}
    assert {name for name in deleted if "pgbouncer" not in name} == {
        "aws_service_discovery_private_dns_namespace.main"
    }
    assert {"aws_db_proxy", "aws_db_instance"} <= created(plan)
    assert refused(project, plan) == "\n"
    named = {one["address"].removeprefix("module.service."): one["change"] for one in plan}
    assert named['aws_secretsmanager_secret_version.module_url["orders"]']["actions"] == ["create"]


@needs_terraform
@pytest.mark.slow
def test_an_upgrade_of_the_template_deletes_and_replaces_nothing_that_holds_data(
    render: Render, tmp_path: Path, aws: dict[str, str]
) -> None:
    project = render({"stage": 4})

    plan = planned(project, tmp_path, recorded(4, older=True), aws, MORNING)

    assert changes(plan) <= MAY_CHANGE
    assert SCHEDULED in created(plan)
    assert refused(project, plan) == "\n"


@needs_terraform
@pytest.mark.slow
def test_an_advance_from_2_to_3_keeps_a_replica_and_what_holds_data(
    render: Render, tmp_path: Path, aws: dict[str, str]
) -> None:
    project = render({"stage": 3, "replica_routing": True})

    plan = planned(project, tmp_path, recorded(2, replica=True), aws)

    may_change = MAY_CHANGE | {
        ("aws_db_instance.replica[0]", "update"),  # Its exported logs, copied tags and insights.
        # The state was recorded without the replica, so PgBouncer learns of it here.
        ("aws_ecs_task_definition.pgbouncer", "replace"),
        ("aws_ecs_service.pgbouncer", "update"),
    }
    assert changes(plan) <= may_change
    assert VALKEY in created(plan)
    assert "aws_db_instance" not in created(plan)
    assert refused(project, plan) == "\n"


@needs_terraform
@pytest.mark.slow
def test_rds_proxy_in_place_of_pgbouncer_deletes_nothing_but_pgbouncer(
    render: Render, tmp_path: Path, aws: dict[str, str]
) -> None:
    project = render({"stage": 2, "pooler": "rds_proxy"})

    plan = planned(project, tmp_path, recorded(2), aws)

    rest = {one for one in changes(plan) if one not in MAY_CHANGE}
    assert {what for _, what in rest} == {"delete"}
    assert {name for name, _ in rest} == {
        "aws_ecs_service.pgbouncer",
        "aws_ecs_task_definition.pgbouncer",
        "aws_security_group.pgbouncer",
        "aws_service_discovery_private_dns_namespace.main",
        "aws_service_discovery_service.pgbouncer",
        "aws_vpc_security_group_egress_rule.pgbouncer",
        "aws_vpc_security_group_ingress_rule.database_from_pgbouncer",
        "aws_vpc_security_group_ingress_rule.pgbouncer_from_app",
    }
    assert "aws_db_proxy" in created(plan)
    assert refused(project, plan) == "\n"
    # Back again: the secret of the proxies goes, and the database's stays.
    secrets = [one for one in plan if one["type"] == "aws_secretsmanager_secret"]
    for one in secrets:
        one["change"]["actions"] = ["delete"]
    assert {one["name"] for one in secrets} == {"database", "rds_proxy", "secret_key"}
    said = refused(project, secrets)
    assert "aws_secretsmanager_secret.database holds a key" in said
    assert "rds_proxy" not in said
