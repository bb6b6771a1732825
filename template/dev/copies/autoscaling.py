# Rung's file: advancing to another stage may change it.
"""Reads the largest number of copies from deploy/autoscaling-target.json."""

from pathlib import Path

from pydantic import BaseModel, Field, PositiveInt, ValidationError

from dev.pooling import capacity
from dev.pooling.capacity import Capacity

FILE = Path("deploy/autoscaling-target.json")


class Target(BaseModel):
    most: PositiveInt = Field(alias="MaxCapacity")


def scaled(written: Capacity) -> Capacity:
    """Replaces the copies by the largest number that autoscaling may start."""
    if not FILE.exists():
        print(f"There is no {FILE}: {written.main or capacity.FILE} says how many copies run.")
        return written
    try:
        target = Target.model_validate_json(FILE.read_text())
    except ValidationError as error:
        capacity.refuse(FILE, error)
    return written.model_copy(update={"copies": max(written.copies, target.most)})
