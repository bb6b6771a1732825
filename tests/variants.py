"""Every variant that copier.yml can make: each stage with each setting of its options."""

from collections.abc import Collection
from itertools import combinations_with_replacement, product
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
    if question["type"] == "bool"
    and question.get("when") is not False  # a computed value, never asked
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


def asked(variant: dict[str, Any]) -> dict[str, Any]:
    """The variant's answers to the questions that its stage asks."""
    stage = variant["stage"]
    return {name: on for name, on in variant.items() if name == "stage" or offered(name, stage)}


def variant_name(variant: dict[str, Any]) -> str:
    """stage-2-replica_routing"""
    chosen = [name for name in OPTIONS if variant[name]]
    return "-".join([f"stage-{variant['stage']}", *chosen])


type Journey = tuple[dict[str, Any], ...]


def at(stage: int, chosen: Collection[str]) -> dict[str, Any]:
    """The variant of that stage with those of the chosen options that it offers."""
    return {"stage": stage, **{name: name in chosen and offered(name, stage) for name in OPTIONS}}


def journeys() -> list[Journey]:
    """Every pair of stages, at once and step by step, with no option, each option and all options.
    Also every option turned on without a change of stage."""
    found: list[Journey] = []
    for chosen in [set(), *({name} for name in OPTIONS), set(OPTIONS)]:
        for here, there in combinations_with_replacement(STAGES, 2):
            if here == there:
                found.append((at(here, ()), at(here, chosen)))
            else:
                steps = [at(stage, chosen) for stage in STAGES if here <= stage <= there]
                found += [(steps[0], steps[-1]), tuple(steps)]
    return [one for i, one in enumerate(found) if one not in found[:i] and one[0] != one[-1]]


JOURNEYS = journeys()
LONGEST: Journey = (at(STAGES[0], ()), at(STAGES[-1], OPTIONS))
STEP_BY_STEP: Journey = (LONGEST[0], *(at(stage, OPTIONS) for stage in STAGES[1:]))


def described(journey: Journey) -> str:
    """stage-1 to stage-2-replica_routing"""
    return " to ".join(map(variant_name, journey))
