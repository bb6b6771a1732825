"""The picture on stage 4's page shows the settings that stage 4 ships."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from conftest import REPO

DEPLOY = REPO / "template" / "deploy"
PICTURE = REPO / "template" / "docs" / "guide" / "copies" / "autoscaling.svg"
PAGE = PICTURE.with_suffix(".md")


@pytest.fixture
def shipped() -> dict[str, int]:
    target = json.loads((DEPLOY / "autoscaling-target.json").read_text())
    policy = json.loads((DEPLOY / "autoscaling-policy.json").read_text())
    tracking = policy["TargetTrackingScalingPolicyConfiguration"]
    return {
        "least": target["MinCapacity"],
        "most": target["MaxCapacity"],
        "percent": tracking["TargetValue"],
        "out": tracking["ScaleOutCooldown"],
        "in": tracking["ScaleInCooldown"],
    }


def simulated(*words: str | Path) -> str:
    command = [sys.executable, REPO / "benchmarks" / "autoscaling.py", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_picture_is_of_the_settings_as_they_are() -> None:
    assert simulated("--picture") == PICTURE.read_text(), (
        "run `uv run python benchmarks/autoscaling.py --draw`, and look at its page beside it"
    )


def test_other_settings_make_another_picture(tmp_path: Path) -> None:
    for name in ("autoscaling-policy.json", "autoscaling-target.json"):
        shutil.copy(DEPLOY / name, tmp_path)
    policy = json.loads((tmp_path / "autoscaling-policy.json").read_text())
    policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] = 40
    (tmp_path / "autoscaling-policy.json").write_text(json.dumps(policy))

    assert simulated("--picture", "--deploy", tmp_path) != PICTURE.read_text()


def test_the_picture_is_well_formed_and_says_what_it_shows() -> None:
    picture = ElementTree.parse(PICTURE).getroot()  # noqa: S314 - a file of ours

    assert picture.attrib["role"] == "img"
    assert picture.findtext("{http://www.w3.org/2000/svg}title")


def test_the_pages_show_the_numbers_of_the_simulation() -> None:
    rows = [line for line in simulated().splitlines() if line.startswith("| ")]
    for page in (PAGE, REPO / "benchmarks" / "README.md"):
        assert [row for row in rows if row not in page.read_text()] == [], page


def test_kubernetes_uses_the_same_numbers(shipped: dict[str, int]) -> None:
    file = DEPLOY / "kubernetes" / "autoscaling" / "autoscaler.yaml"
    spec = yaml.safe_load(file.read_text())["spec"]
    [rising] = spec["behavior"]["scaleUp"]["policies"]
    assert {
        "least": spec["minReplicas"],
        "most": spec["maxReplicas"],
        "percent": spec["metrics"][0]["containerResource"]["target"]["averageUtilization"],
        "out": rising["periodSeconds"],
        "in": spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"],
    } == shipped


def test_the_heroku_example_uses_the_same_numbers_of_copies(shipped: dict[str, int]) -> None:
    assert f"--min {shipped['least']} --max {shipped['most']}" in PAGE.read_text()
