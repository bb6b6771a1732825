# Rung's file: advancing to another stage may change it.
"""The capacity of production on AWS: variables of environments/NAME/main.tf, and RDS' size."""

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dev.deploy import cost
from dev.deploy.environment import folder_of
from dev.deploy.programs import Stop
from dev.pooling import capacity
from dev.pooling.capacity import Capacity

# Memory of the size `large` in GiB. A micro has an eighth of it, an 8xlarge sixteen times as much.
LARGE = {"t": 8, "m": 8, "r": 16, "x": 32}
SIZES = {"micro": 1 / 8, "small": 1 / 4, "medium": 1 / 2, "large": 1, "xlarge": 2}
# DBInstanceClassMemory is less than the memory: Postgres 18 on db.t4g.small has 181, not 225.
OF_POSTGRES, OF_THE_SYSTEM = 0.93, 256 * 2**20
MOST = 5000

OF_A_DATABASE = re.compile(r"(MODULE_\w+_)?DATABASE_")
PLACE = "postgresql://app"  # only the sizes of pools count here


def read(environment: str) -> Capacity:
    folder = folder_of(environment)
    said = cost.settings(folder)
    found = servers(said) | {"main": folder / "main.tf"}
    variables = of_modules(said) | settings(folder, said["extra_environment"])
    for name in [name for name in os.environ if OF_A_DATABASE.match(name)]:
        del os.environ[name]  # It belongs to this machine, not to production.
    os.environ.update(variables)
    try:
        return Capacity.model_validate(capacity.read().model_dump() | found)
    except ValidationError as error:
        capacity.refuse(folder / "main.tf", error)


def servers(said: dict[str, Any]) -> dict[str, Any]:
    """The fields of a Capacity that the variables of main.tf say."""
    found = {
        "copies": said["copies"],
        "pooled": True,
        "replicas": said.get("replicas", 0),
        "max_connections": max_connections(said["database"]["class"]),
    }
    if said.get("module_databases"):
        found["module_max_connections"] = max_connections(said["module_database"]["class"])
    if "rds_proxy" in said:
        return found | {"proxy_percent": said["rds_proxy"]["connections_percent"]}
    bouncer = said["pgbouncer"]
    return found | {"pgbouncers": bouncer["copies"], "pool_size": bouncer["pool_size"]}


def of_modules(said: dict[str, Any]) -> dict[str, str]:
    """The variables of modules' databases, as deploy/aws sets them in the containers."""
    found = {}
    for module, count in said.get("module_replicas", {}).items():
        found[f"MODULE_{module.upper()}_DATABASE_REPLICA_URLS"] = ",".join([PLACE] * count)
    kinds = ("URL",) if "rds_proxy" in said else ("URL", "READ_URL", "DIRECT_URL", "POOLED")
    for module in [one.strip('"') for one in said.get("module_databases", [])]:
        for kind in kinds:
            value = "true" if kind == "POOLED" else f"{PLACE}?application_name={kind}"
            found[f"MODULE_{module.upper()}_DATABASE_{kind}"] = value
    return found


def max_connections(size: str) -> int:
    """The default of RDS: LEAST({DBInstanceClassMemory/9531392}, 5000)."""
    found = re.fullmatch(r"db\.([a-z])\w*\.(?:(\d+)(?=xlarge))?(\w+)", size)
    if not found or found[1] not in LARGE or found[3] not in SIZES:
        raise Stop(f"The memory of {size} is not known. Add it in dev/pooling/budget_aws.py.")
    memory = LARGE[found[1]] * SIZES[found[3]] * int(found[2] or 1) * 2**30
    return min(int((memory * OF_POSTGRES - OF_THE_SYSTEM) / 9_531_392), MOST)


def settings(folder: Path, extra: Any) -> dict[str, str]:
    if not isinstance(extra, dict):
        raise Stop(
            f"Write extra_environment as plain text in {folder}/main.tf, so that the pool sizes in"
            " it can be read."
        )
    return {name: str(value).strip('"') for name, value in extra.items() if name.isupper()}
