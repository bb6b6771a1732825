"""Every kind of project that copier.yml can make: each stage, each setting of its options."""

from itertools import product
from pathlib import Path
from typing import Any

import jinja2
import yaml

QUESTIONS: dict[str, Any] = {
    name: question
    for name, question in yaml.safe_load(
        (Path(__file__).parents[1] / "copier.yml").read_text()
    ).items()
    if not name.startswith("_")
}

STAGES: list[int] = list(QUESTIONS["stage"]["choices"].values())
OPTIONS = [
    name
    for name, question in QUESTIONS.items()
    if question["type"] == "bool" and question.get("when") is not False  # which is never asked
]


def offered(option: str, stage: int) -> bool:
    condition = jinja2.Environment(autoescape=True).from_string(str(QUESTIONS[option]["when"]))
    return condition.render(stage=stage) == "True"


VARIANTS: list[dict[str, Any]] = [
    {"stage": stage, **dict(zip(OPTIONS, setting, strict=True))}
    for stage in STAGES
    for setting in product((False, True), repeat=len(OPTIONS))
    if all(offered(option, stage) for option, on in zip(OPTIONS, setting, strict=True) if on)
]


def spoken(variant: dict[str, Any]) -> str:
    """stage-2-replica_routing"""
    chosen = [name for name in OPTIONS if variant[name]]
    return "-".join([f"stage-{variant['stage']}", *chosen])
