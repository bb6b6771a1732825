# Rung's file: advancing to another stage may change it.
"""deploy/autoscaling-*.json are what AWS takes, and what the budget counts with."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / f"autoscaling-{name}.json").read_text())
    return found


def budget(folder: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DATABASE_")}
    environment = {**kept, "PYTHONPATH": str(DEPLOY.parent)}
    command = [sys.executable, "-m", "dev.budget"]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_budget_counts_as_many_copies_as_autoscaling_may_start(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    assert budget(tmp_path).stdout.startswith(f"{settings('target')['MaxCapacity']} copies")

    more = {**settings("target"), "MaxCapacity": 2000}
    (tmp_path / "deploy" / "autoscaling-target.json").write_text(json.dumps(more))
    refused = budget(tmp_path)
    assert refused.returncode == 1
    assert "max_client_conn = 100000 in deploy/pgbouncer.ini" in refused.stderr
    assert "maxclients 64000 in deploy/cache.conf" in refused.stderr


def test_without_autoscaling_the_budget_counts_the_copies_of_capacity(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    (tmp_path / "deploy" / "autoscaling-target.json").unlink()

    assert budget(tmp_path).stdout.startswith("1 copies")


def test_one_copy_may_die_at_any_time() -> None:
    assert settings("target")["MinCapacity"] >= 2


def test_both_files_speak_of_the_same_service() -> None:
    target, policy = settings("target"), settings("policy")

    for key in ("ServiceNamespace", "ScalableDimension"):
        assert target[key] == policy[key]


def test_it_is_quick_to_add_and_slow_to_remove() -> None:
    tracking = settings("policy")["TargetTrackingScalingPolicyConfiguration"]

    assert tracking["ScaleOutCooldown"] < tracking["ScaleInCooldown"]
