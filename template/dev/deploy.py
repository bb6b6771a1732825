# Rung's file: advancing to another stage may change it.
"""Plans an environment on AWS and refuses a plan that loses data: `make deploy-plan`."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HOLDS = {
    "aws_db_instance": "rows",
    "aws_ecr_repository": "the images to go back to",
    "aws_efs_file_system": "uploaded files",
    "aws_elasticache_replication_group": "login sessions",
    "aws_s3_bucket": "uploaded files",
    "aws_secretsmanager_secret": "a key",
    "aws_secretsmanager_secret_version": "a key",
}
PLAN = "checked.tfplan"


def losses(plan: dict[str, Any]) -> list[str]:
    """What the plan destroys or replaces that holds data, one line each."""
    found = []
    for one in plan.get("resource_changes", []):
        change, holds = one["change"], HOLDS.get(one["type"])
        if holds is None or "delete" not in change["actions"] or is_a_copy(one):
            continue
        if "create" in change["actions"]:
            names = sorted({str(path[0]) for path in change.get("replace_paths", []) if path})
            why = f"be replaced, because this changes: {', '.join(names) or 'it was asked for'}"
        elif one.get("action_reason") == "delete_because_no_resource_config":
            why = "be destroyed, because no file has it any more: was an advance reverted?"
        else:
            why = "be destroyed"
        found.append(f"{one['address']} holds {holds} and would {why}")
    return found


def is_a_copy(one: dict[str, Any]) -> bool:
    """A replica and the cache hold nothing that Postgres does not have."""
    before = one["change"].get("before") or {}
    return bool(before.get("replicate_source_db")) or (
        one["type"] == "aws_elasticache_replication_group" and one["name"] == "cache"
    )


def terraform(folder: Path, *arguments: str) -> bool:
    return subprocess.run(["terraform", *arguments], cwd=folder, check=False).returncode == 0


def plan(folder: Path, image: str) -> None:
    (folder / PLAN).unlink(missing_ok=True)
    variables = [f"-var=image={image}"] if image else []
    if not terraform(folder, "plan", "-input=false", f"-out={PLAN}", *variables):
        sys.exit("There is no plan, and nothing changed. Terraform gives the reason above.")
    shown = subprocess.run(
        ["terraform", "show", "-json", PLAN], cwd=folder, check=True, capture_output=True
    )
    if lost := losses(json.loads(shown.stdout)):
        (folder / PLAN).unlink()
        sys.exit("\n".join(["Refused:", *lost, "Bring back what was there, then plan again."]))


def apply(folder: Path) -> None:
    if not (folder / PLAN).exists():
        sys.exit("There is no plan to apply. Run `make deploy-plan` and read it first.")
    done = terraform(folder, "apply", "-input=false", PLAN)
    (folder / PLAN).unlink()
    if not done:
        sys.exit(
            "The apply stopped on the way. Run `make deploy-plan` again: it goes on from there."
        )


def main() -> None:
    environment = os.environ.get("ENV", "")
    folder = Path("environments") / environment
    if not environment or environment != folder.name or not (folder / "main.tf").is_file():
        known = sorted(file.parent.name for file in Path("environments").glob("*/main.tf"))
        sys.exit(f"Say which environment: ENV=production. There is: {', '.join(known) or 'none'}.")
    try:
        if sys.argv[1:] == ["apply"]:
            apply(folder)
        else:
            plan(folder, os.environ.get("IMAGE", ""))
    except FileNotFoundError:
        sys.exit("Terraform is not installed, or not on your PATH. Install 1.11 or newer.")


if __name__ == "__main__":
    main()
