"""The variants that are tested: each stage with none of its options, the first, and all of them."""

from collections.abc import Collection
from itertools import combinations_with_replacement, pairwise
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


def at(stage: int, chosen: Collection[str]) -> dict[str, Any]:
    """The variant of that stage with those of the chosen options that it offers."""
    return {"stage": stage, **{name: name in chosen and offered(name, stage) for name in OPTIONS}}


# Its files are one of Terraform, so only tests of deploy/aws render it.
WITH_RDS_PROXY: dict[str, Any] = {**at(STAGES[-1], OPTIONS), "pooler": "rds_proxy"}

# An option adds one variant, with all options before it: two options do not need four a stage.
CHOICES = [OPTIONS[:n] for n in range(len(OPTIONS) + 1)]

VARIANTS: list[dict[str, Any]] = []
for _stage in STAGES:
    for _chosen in CHOICES:
        if at(_stage, _chosen) not in VARIANTS:
            VARIANTS.append(at(_stage, _chosen))


def asked(variant: dict[str, Any]) -> dict[str, Any]:
    """The variant's answers to the questions that its stage asks."""
    stage = variant["stage"]
    return {name: on for name, on in variant.items() if name == "stage" or offered(name, stage)}


def variant_name(variant: dict[str, Any]) -> str:
    """stage-2-replica_routing"""
    chosen = [name for name in OPTIONS if variant[name]]
    pooler = [variant["pooler"]] if "pooler" in variant else []
    return "-".join([f"stage-{variant['stage']}", *chosen, *pooler])


type Journey = tuple[dict[str, Any], ...]


def journeys() -> list[Journey]:
    """Every pair of stages, at once and step by step, with no option and with the first: the whole
    ladder with all of them. Also each option turned on without a change of stage."""
    found: list[Journey] = []
    for chosen in CHOICES[:2]:
        for here, there in combinations_with_replacement(STAGES, 2):
            if here == there:
                found.append((at(here, ()), at(here, chosen)))
            elif chosen and (here, there) == (STAGES[0], STAGES[-1]):
                found += [LONGEST, STEP_BY_STEP]
            else:
                steps = [at(stage, chosen) for stage in STAGES if here <= stage <= there]
                found += [(steps[0], steps[-1]), tuple(steps)]
    for fewer, more in pairwise(CHOICES[1:]):
        found.append((at(STAGES[-1], fewer), at(STAGES[-1], more)))
    return [one for i, one in enumerate(found) if one not in found[:i] and one[0] != one[-1]]


LONGEST: Journey = (at(STAGES[0], ()), at(STAGES[-1], OPTIONS))
STEP_BY_STEP: Journey = (LONGEST[0], *(at(stage, OPTIONS) for stage in STAGES[1:]))
JOURNEYS = journeys()


def described(journey: Journey) -> str:
    """stage-1 to stage-2-replica_routing"""
    return " to ".join(map(variant_name, journey))
