# Rung's file: advancing to another stage may change it.
"""Plans an environment on AWS and refuses a plan that loses data: `make deploy-plan`."""

import json
from pathlib import Path
from typing import Any

from dev.deploy import cost
from dev.deploy.programs import Stop, need_terraform, output, run, say

HOLDS = {
    "aws_db_instance": "rows",
    "aws_ecr_repository": "the images that a rollback needs",
    "aws_efs_file_system": "uploaded files",
    "aws_elasticache_replication_group": "login sessions",
    "aws_s3_bucket": "uploaded files",
    "aws_secretsmanager_secret": "a key",
    "aws_secretsmanager_secret_version": "a key",
}
COPIES = {
    ("aws_elasticache_replication_group", "cache"),
    ("aws_secretsmanager_secret", "module_replica_urls"),
    ("aws_secretsmanager_secret", "module_url"),
    ("aws_secretsmanager_secret", "rds_proxy"),
    ("aws_secretsmanager_secret_version", "module_replica_urls"),
    ("aws_secretsmanager_secret_version", "module_url"),
    ("aws_secretsmanager_secret_version", "rds_proxy"),
}
PLAN = "checked.tfplan"


def losses(plan: dict[str, Any]) -> list[str]:
    """A line for each resource with data that the plan destroys or replaces."""
    found = []
    for one in plan.get("resource_changes", []):
        change, holds = one["change"], HOLDS.get(one["type"])
        if holds is None or "delete" not in change["actions"] or is_a_copy(one):
            continue
        if "create" in change["actions"]:
            names = sorted({str(path[0]) for path in change.get("replace_paths", []) if path})
            why = f"be replaced, because this changes: {', '.join(names) or 'it was asked for'}"
        elif one.get("action_reason") == "delete_because_no_resource_config":
            why = "be destroyed, because no file declares it: did somebody revert an advance?"
        else:
            why = "be destroyed"
        found.append(f"{one['address']} holds {holds} and would {why}")
    return found


def is_a_copy(one: dict[str, Any]) -> bool:
    """A replica, the cache and the secrets of RDS Proxy or of a URL hold copies of other data."""
    before = one["change"].get("before") or {}
    return bool(before.get("replicate_source_db")) or (one["type"], one["name"]) in COPIES


def plan(folder: Path, image: str) -> None:
    need_terraform()
    (folder / PLAN).unlink(missing_ok=True)
    variables = [f"-var=image={image}"] if image else []
    if not run("terraform", "plan", "-input=false", f"-out={PLAN}", *variables, cwd=folder):
        raise Stop("There is no plan, and nothing changed. Terraform gives the reason above.")
    shown = json.loads(output("terraform", "show", "-json", PLAN, cwd=folder))
    if lost := losses(shown):
        (folder / PLAN).unlink()
        next_step = "Undo the change that causes this. Then plan again."
        raise Stop("\n".join(["Refused:", *lost, next_step]))
    say(cost.change(shown))


def apply(folder: Path, again: str = "make deploy-plan") -> None:
    need_terraform()
    if not (folder / PLAN).exists():
        raise Stop("There is no plan to apply. Run `make deploy-plan` and read it first.")
    try:
        done = run("terraform", "apply", "-input=false", PLAN, cwd=folder)
    finally:
        (folder / PLAN).unlink()
    if not done:
        raise Stop(f"The apply stopped before its end. Run `{again}` again: it continues there.")
