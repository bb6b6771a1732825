# Rung's file: advancing to another stage may change it.
"""deploy/capacity.toml: what runs in production."""

import sys
import tomllib
from pathlib import Path
from typing import NamedTuple, NoReturn

from pydantic import BaseModel, Field, NonNegativeInt, PositiveInt, ValidationError

FILE = Path("deploy/capacity.toml")


class Capacity(BaseModel, extra="forbid", frozen=True):
    copies: PositiveInt
    workers: PositiveInt
    during_a_deploy: PositiveInt
    direct: NonNegativeInt
    pooled: bool = False
    pgbouncers: PositiveInt = 1
    database_cpus: PositiveInt | None = None  # read by `make doctor`
    module_cpus: dict[str, PositiveInt] = {}  # the same, of modules' own databases

    # Set on AWS only, by dev/pooling/budget_aws.py.
    main: Path | None = None  # environments/NAME/main.tf
    replicas: NonNegativeInt | None = None
    pool_size: PositiveInt | None = None
    proxy_percent: int | None = Field(default=None, ge=1, le=100)
    max_connections: PositiveInt | None = None
    module_max_connections: PositiveInt | None = None

    @property
    def processes(self) -> int:
        return self.copies * self.during_a_deploy * self.workers


class Need(NamedTuple):
    """The connections that one part opens at most, and its limit."""

    what: str
    sum: str
    needed: int
    limit: int
    remedy: str


def read() -> Capacity:
    try:
        return Capacity.model_validate(tomllib.loads(FILE.read_text()))
    except tomllib.TOMLDecodeError as error:
        sys.exit(f"{FILE} is not TOML: {error}")
    except ValidationError as error:
        refuse(FILE, error)


def refuse(file: Path, error: ValidationError) -> NoReturn:
    places = [(".".join(map(str, wrong["loc"])), wrong["msg"]) for wrong in error.errors()]
    lines = [f"  {': '.join(filter(None, place))}" for place in places]
    sys.exit("\n".join([f"{file} is not right:", *lines]))


def number(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"
