# Rung's file: advancing to another stage may change it.
"""How many copies there may be, as deploy/autoscaling-target.json tells AWS."""

import json
from pathlib import Path

from dev import capacity
from dev.capacity import Capacity

FILE = Path("deploy/autoscaling-target.json")


def read() -> Capacity:
    """What deploy/capacity.toml says, and as many copies as autoscaling may start, if it does."""
    written = capacity.read()
    most: int = json.loads(FILE.read_text())["MaxCapacity"] if FILE.exists() else 0
    return written.model_copy(update={"copies": max(written.copies, most)})
