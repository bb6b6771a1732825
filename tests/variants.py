"""Every kind of project that copier.yml can make: each stage, each setting of its options."""

from itertools import product
from pathlib import Path
from typing import Any

import yaml

QUESTIONS: dict[str, Any] = {
    name: question
    for name, question in yaml.safe_load(
        (Path(__file__).parents[1] / "copier.yml").read_text()
    ).items()
    if not name.startswith("_")
}

STAGES: list[int] = list(QUESTIONS["stage"]["choices"].values())
OPTIONS = [name for name, question in QUESTIONS.items() if question["type"] == "bool"]

VARIANTS: list[dict[str, Any]] = [
    {"stage": stage, **dict(zip(OPTIONS, setting, strict=True))}
    for stage in STAGES
    for setting in product((False, True), repeat=len(OPTIONS))
]


def spoken(variant: dict[str, Any]) -> str:
    """stage-2-replica_routing"""
    chosen = [name for name in OPTIONS if variant[name]]
    return "-".join([f"stage-{variant['stage']}", *chosen])
