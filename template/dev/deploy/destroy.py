# Rung's file: advancing to another stage may change it.
"""`make destroy`: asks for the environment's name, removes its protection, and destroys it."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from dev.deploy.environment import Environment
from dev.deploy.programs import Stop, output, run, say

MODULE = Path("deploy/aws")
# Terraform merges it over the other files. If a killed run leaves it, the tree is dirty, so no
# release uses it.
OVERRIDE = MODULE / "destroy_override.tf"

SNAPSHOT = 'final_snapshot_identifier = "{}"'
UNPROTECTED = {
    "aws_db_instance": f"deletion_protection = false\n  {SNAPSHOT}",
    "aws_ecr_repository": "force_delete = true",
    "aws_elasticache_replication_group": SNAPSHOT,
    "aws_lb": "enable_deletion_protection = false",
    "aws_s3_bucket": "force_destroy = true",
}
KEY = '-${replace(each.key, "_", "-")}'
PROTECTED = re.compile(r"(prevent_destroy|deletion_protection) += true")
LOST = "uploaded files, login sessions, logs, images and secrets. Postgres leaves a final snapshot"


def destroy(read: Environment, begin: Callable[[], object]) -> None:
    try:
        typed = input(f"This destroys {read.id}: {LOST}.\nType {read.id} to continue: ")
    except EOFError:
        typed = ""
    if typed != read.id:
        raise Stop("\nThat is another name. Nothing was destroyed.")
    begin()
    there = output("terraform", "state", "list", cwd=read.folder).splitlines()
    found = protected()
    addresses = {one.partition("[")[0] for one in there}  # of one or of several
    # Only existing resources: a second run must not create the destroyed ones again.
    targets = [
        f"-target=module.service.{kind}.{name}"
        for kind, name, _ in found
        if kind in UNPROTECTED and f"module.service.{kind}.{name}" in addresses
    ]
    # A new name each time: AWS refuses the name of a snapshot that an earlier environment left.
    now = f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    overrides = [
        override(kind, name, f"{read.id}-{name}{key}-final-{now}") for kind, name, key in found
    ]
    yes = ("-input=false", "-auto-approve")
    OVERRIDE.write_text("".join(overrides), encoding="utf-8")
    try:
        say("Removing the protection")
        if targets and not run("terraform", "apply", *yes, *targets, cwd=read.folder):
            raise Stop("The protection is still on: the reason is above. Run this again.")
        if not run("terraform", "destroy", *yes, cwd=read.folder):
            raise Stop("Some resources remain: the reason is above. Run the same command again.")
    finally:
        OVERRIDE.unlink()
    say(f"{read.id} is destroyed. Terraform's state bucket and the final snapshots stay.")


def protected() -> list[tuple[str, str, str]]:
    """The kind, the name, and the suffix for a snapshot of one of several (for_each)."""
    text = "\n".join(file.read_text(encoding="utf-8") for file in sorted(MODULE.glob("*.tf")))
    resources = re.findall(r'^resource "(\w+)" "(\w+)" {$(.*?)^}$', text, re.MULTILINE | re.DOTALL)
    return [
        (kind, name, KEY if "for_each " in body else "")
        for kind, name, body in resources
        if PROTECTED.search(body)
    ]


def override(kind: str, name: str, snapshot: str) -> str:
    unprotected = UNPROTECTED.get(kind, "").format(snapshot)
    head = f'resource "{kind}" "{name}" ' + "{"
    lines = [head, f"  {unprotected}", "  lifecycle {", "    prevent_destroy = false", "  }", "}"]
    return "\n".join([*lines, ""])
