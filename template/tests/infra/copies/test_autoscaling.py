# Rung's file: advancing to another stage may change it.
"""Tests of deploy/autoscaling-*.json: AWS accepts them, and `make budget` counts with them."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dev.copies.autoscaling import scaled
from dev.pooling import capacity

DEPLOY = Path(__file__).parents[3] / "deploy"


def settings(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / f"autoscaling-{name}.json").read_text())
    return found


@pytest.fixture
def own_deploy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(DEPLOY, tmp_path / "deploy")


def test_the_budget_counts_as_many_copies_as_autoscaling_may_start(own_deploy: Path) -> None:
    more = {**settings("target"), "MaxCapacity": 2000}
    (own_deploy / "autoscaling-target.json").write_text(json.dumps(more))
    assert scaled(capacity.read()).copies == 2000


def test_without_autoscaling_the_budget_counts_and_names_the_copies_in_capacity(
    own_deploy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (own_deploy / "autoscaling-target.json").unlink()

    assert scaled(capacity.read()) == capacity.read()
    assert "There is no deploy/autoscaling-target.json: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"x"', "Input should be an object"),
        ("{", "Invalid JSON: "),
        ("{}", "MaxCapacity: Field required"),
        ('{"MaxCapacity": "x"}', "MaxCapacity: Input should be "),
    ],
)
def test_an_invalid_target_is_refused_with_a_reason(own_deploy: Path, text: str, said: str) -> None:
    (own_deploy / "autoscaling-target.json").write_text(text)

    with pytest.raises(SystemExit) as refused:
        scaled(capacity.read())

    assert f"deploy/autoscaling-target.json is not right:\n  {said}" in str(refused.value)


def test_autoscaling_keeps_at_least_two_copies() -> None:
    assert settings("target")["MinCapacity"] >= 2


def test_both_files_name_the_same_service() -> None:
    target, policy = settings("target"), settings("policy")

    for key in ("ServiceNamespace", "ScalableDimension"):
        assert target[key] == policy[key]


def test_autoscaling_adds_copies_quickly_and_removes_them_slowly() -> None:
    tracking = settings("policy")["TargetTrackingScalingPolicyConfiguration"]

    assert tracking["ScaleOutCooldown"] < tracking["ScaleInCooldown"]
