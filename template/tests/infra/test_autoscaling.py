# Rung's file: advancing to another stage may change it.
"""deploy/autoscaling-*.json are what AWS takes; nothing else says how many copies there are."""

import json
import tomllib
from pathlib import Path
from typing import Any

DEPLOY = Path(__file__).parent.parent.parent / "deploy"


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / f"autoscaling-{name}.json").read_text())
    return found


def test_the_budget_counts_as_many_copies_as_autoscaling_may_start() -> None:
    capacity = tomllib.loads((DEPLOY / "capacity.toml").read_text())

    assert settings("target")["MaxCapacity"] == capacity["copies"]


def test_one_copy_may_die_at_any_time() -> None:
    assert settings("target")["MinCapacity"] >= 2


def test_both_files_speak_of_the_same_service() -> None:
    target, policy = settings("target"), settings("policy")

    for key in ("ServiceNamespace", "ScalableDimension"):
        assert target[key] == policy[key]


def test_it_is_quick_to_add_and_slow_to_remove() -> None:
    tracking = settings("policy")["TargetTrackingScalingPolicyConfiguration"]

    assert tracking["ScaleOutCooldown"] < tracking["ScaleInCooldown"]
