# Rung's file: advancing to another stage may change it.
"""`make deploy-plan` and `make deploy-apply`."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev.deploy.__main__ import run
from dev.deploy.guard import losses
from dev.deploy.programs import Stop
from tests.infra.conftest import run_python

ROOT = Path(__file__).parents[2]

COMMANDS = ("deploy", "plan", "apply", "rollback", "console", "destroy", "cost")
NO_ENVIRONMENT = (
    *("", "staging", "x" * 300, "production\n"),
    *("..", ".", "production/", "./production", "../environments/production", "/etc"),
)

# Replaces Terraform: it plans what plan.json says, and applies an existing plan.
TERRAFORM = """\
#!/bin/sh
case $1 in
version) echo "{\\"terraform_version\\": \\"${VERSION:-1.11.0}\\"}" ;;
plan) echo "$@" > planned; echo > checked.tfplan ;;
show) cat plan.json ;;
apply) test -e checked.tfplan && echo > applied && exit ${APPLY:-0} ;;
esac
"""


def change(address: str, actions: list[str], **more: Any) -> dict[str, Any]:
    """As Terraform 1.11.4 and provider aws 5.100.0 report it."""
    kind, name = address.removeprefix("module.service.").split(".")
    reason = more.pop("action_reason", "delete_because_no_resource_config")
    return {
        "address": address,
        "type": kind,
        "name": name,
        "action_reason": reason,
        "change": {"actions": actions, **more},
    }


HARMLESS = [
    change("module.service.aws_ecs_task_definition.app", ["delete", "create"]),
    change("module.service.aws_db_instance.main", ["update"]),
    change("aws_db_instance.replica", ["delete"], before={"replicate_source_db": "shop"}),
    change("module.service.aws_elasticache_replication_group.cache", ["delete"]),
    change("aws_s3_bucket.old", ["forget"]),
]


def test_each_resource_that_a_plan_would_lose_is_named_with_the_reason() -> None:
    must_be_new = {"action_reason": "replace_because_cannot_update"}
    plan = [
        *HARMLESS,
        change("module.service.aws_s3_bucket.files", ["delete"]),
        change("aws_elasticache_replication_group.sessions", ["delete"]),
        change(
            "aws_efs_file_system.files",
            ["delete", "create"],
            replace_paths=[["encrypted"]],
            **must_be_new,
        ),
        change(
            "aws_secretsmanager_secret.database",
            ["create", "delete"],
            replace_paths=[["name"]],
            **must_be_new,
        ),
    ]

    reverted = "destroyed, because no file declares it: did somebody revert an advance?"
    assert losses({"resource_changes": plan}) == [
        f"module.service.aws_s3_bucket.files holds uploaded files and would be {reverted}",
        f"aws_elasticache_replication_group.sessions holds login sessions and would be {reverted}",
        "aws_efs_file_system.files holds uploaded files and would be replaced, "
        "because this changes: encrypted",
        "aws_secretsmanager_secret.database holds a key and would be replaced, "
        "because this changes: name",
    ]


@pytest.fixture
def production(tmp_path: Path) -> Path:
    folder = tmp_path / "environments" / "production"
    (folder / ".terraform").mkdir(parents=True)  # As after the first `make deploy`.
    (folder / "main.tf").touch()
    (tmp_path / "terraform").write_text(TERRAFORM)
    (tmp_path / "terraform").chmod(0o755)
    return folder


def deploy(production: Path, *arguments: str, **given: str) -> subprocess.CompletedProcess[str]:
    top = production.parents[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "ENV": "production"}
    environment["PATH"] = f"{top}:{os.environ['PATH']}"
    return run_python("-m", "dev.deploy", *arguments, cwd=top, env=environment | given)


def test_a_plan_that_loses_nothing_is_applied_once(production: Path) -> None:
    (production / "plan.json").write_text(json.dumps({"resource_changes": HARMLESS}))

    assert deploy(production, IMAGE="shop:1").returncode == 0
    assert "-var=image=shop:1" in (production / "planned").read_text()
    assert deploy(production, "apply").returncode == 0
    assert (production / "applied").exists()
    assert "There is no plan to apply" in deploy(production, "apply").stderr


def test_a_plan_that_loses_data_cannot_be_applied(production: Path) -> None:
    lost = [change("aws_db_instance.main", ["delete"])]
    (production / "plan.json").write_text(json.dumps({"resource_changes": lost}))

    refused = deploy(production)

    assert refused.returncode == 1
    assert "aws_db_instance.main holds rows" in refused.stderr
    assert deploy(production, "apply").returncode == 1
    assert not (production / "applied").exists()


def test_an_apply_that_stops_says_what_to_run_next(production: Path) -> None:
    (production / "plan.json").write_text("{}")
    deploy(production)

    stopped = deploy(production, "apply", APPLY="1")

    assert stopped.returncode == 1
    assert "Run `make deploy-plan` again" in stopped.stderr


def test_a_missing_environment_is_reported_in_one_line(production: Path) -> None:
    refused = deploy(production, ENV="../production")

    assert refused.returncode == 1
    assert refused.stderr == "Say which environment: ENV=production. There is: production.\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_accepts_only_an_existing_environment(
    production: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(production.parents[1])
    for name in NO_ENVIRONMENT:
        monkeypatch.setenv("ENV", name)
        with pytest.raises(Stop, match=r"^Say which environment: .* There is: production\.$"):
            run(command)


def test_make_passes_on_its_variables_and_runs_nothing_in_them(tmp_path: Path) -> None:
    typed = f"production'; touch {tmp_path}/made; \"`touch {tmp_path}/made`"
    shown = ["RUN=printenv ENV #", f"ENV={typed}"]
    outside_make = {name: value for name, value in os.environ.items() if "MAKE" not in name}

    for target in ("deploy", "deploy-plan", "deploy-apply", "rollback", "console", "destroy"):
        command = ["make", "--no-print-directory", target, *shown]
        done = subprocess.run(
            command, cwd=ROOT, env=outside_make, capture_output=True, text=True, check=False
        )
        assert done.stdout == f"{typed}\n", done.stderr

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["plan", "apply"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"PATH": "/nowhere"}, "Terraform is not installed, or not on your PATH."),
        ({"VERSION": "1.10.5"}, "Terraform 1.10.5 is too old."),
        ({"VERSION": "new"}, "Terraform does not start: `terraform version -json` fails."),
    ],
)
def test_an_unusable_terraform_is_reported_in_one_line(
    production: Path, command: str, given: dict[str, str], said: str
) -> None:
    refused = deploy(production, command, **given)

    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == f"{said} Install 1.11 or newer.\n"
    assert not (production / "planned").exists()
