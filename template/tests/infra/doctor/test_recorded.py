# Rung's file: advancing to another stage may change it.
"""Evidence of real cases, recorded by benchmarks/doctor_cases.py of Rung, and judged again."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.infra.doctor.evidence import Evidence
from app.infra.doctor.rules import judge

# Each capability keeps its own cases.
RECORDED: list[dict[str, Any]] = [
    case
    for file in sorted(Path(__file__).parents[1].glob("*/recorded.json"))
    for case in json.loads(file.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["case"])
def test_a_recorded_case_has_its_verdict(case: dict[str, Any]) -> None:
    verdict = judge(Evidence.model_validate(case["evidence"])).verdict

    assert (verdict.rule, verdict.advance_to) == (case["rule"], case["advance_to"])
