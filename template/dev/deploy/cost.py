# Rung's file: advancing to another stage may change it.
"""`make cost`: what an environment costs a month, from its variables and prices.toml."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

from dev.deploy.environment import blocks_of, named, plain, unquoted
from dev.deploy.programs import Stop

MODULE = Path("deploy/aws")
PRICES = Path("dev/deploy/prices.toml")
LEFT_OUT = (
    "Left out: traffic, requests, logs, traces, metrics, stored files (EFS, S3), images, backups\n"
    "beyond the size of the database, tax, and every discount."
)

type Row = tuple[str, str, float]


def cost(folder: Path) -> str:
    prices = tomllib.loads(PRICES.read_text(encoding="utf-8"))
    found = rows(settings(folder), prices)
    total = sum(money for _, _, money in found)
    width = max(len(what) for what, _, _ in found)
    size = max(len(of) for _, of, _ in found)
    lines = [f"  {what:{width}}  {of:{size}}  {money:>8.2f}" for what, of, money in found]
    return "\n".join(
        [
            f"US dollars a month, list prices of us-east-1 in {prices['as_of']}:",
            *lines,
            f"  {'together':{width}}  {'':{size}}  {total:>8.2f}",
            LEFT_OUT,
            f"Prices and their sources: {PRICES}",
        ]
    )


def rows(said: dict[str, Any], prices: dict[str, Any]) -> list[Row]:
    hours, hourly, monthly = prices["hours"], prices["hourly"], prices["monthly"]
    database = said["database"]

    def task(cpu: float, memory: float) -> float:
        computing = cpu / 1024 * hourly["vcpu"] + memory / 1024 * hourly["memory_gb"]
        return float((computing + hourly["address"]) * hours)

    def postgres(times: int) -> float:
        server = priced(prices, "postgres", database["class"]) * hours
        return float(times * (server + database["storage"] * monthly["storage_gb"]))

    def valkey(one: dict[str, Any]) -> Row:
        price = priced(prices, "valkey", one["node_type"])
        return "", f"{one['nodes']} x {one['node_type']}", one["nodes"] * price * hours

    copies, servers = least_copies(said["copies"]), 2 if database["multi_az"] else 1
    size = f"{said['cpu'] / 1024:g} vCPU, {said['memory'] / 1024:g} GB"
    data = f"{database['class']}, {database['storage']} GB"
    found = [
        ("app", f"{copies} x {size}, with address", copies * task(said["cpu"], said["memory"])),
        ("load balancer", "2 addresses", (hourly["load_balancer"] + 2 * hourly["address"]) * hours),
        ("Postgres", f"{servers} x {data}", postgres(servers)),
        ("secrets", "2", 2 * monthly["secret"]),
    ]
    if "pgbouncer" in said:
        count = said["pgbouncer"]["copies"]
        found.append(("PgBouncer", f"{count} x 0.25 vCPU, 0.5 GB", count * task(256, 512)))
    if "replicas" in said:
        found.append(("replicas", f"{said['replicas']} x {data}", postgres(said["replicas"])))
    found += [(name, *valkey(said[name])[1:]) for name in ("cache", "sessions") if name in said]
    return found


def priced(prices: dict[str, Any], table: str, size: str) -> float:
    if price := prices[table].get(size):
        return float(price)
    raise Stop(f"{PRICES} has no price of {size}. Add it under [{table}], with its source.")


def least_copies(written: int) -> int:
    target = Path("deploy/autoscaling-target.json")
    if not target.exists():
        return written
    return max(written, int(json.loads(target.read_text(encoding="utf-8"))["MinCapacity"]))


def settings(folder: Path) -> dict[str, Any]:
    """The variables of the module, with the environment's values over their defaults."""
    given = named(blocks_of(folder), "module", "service")
    found: dict[str, Any] = {}
    for file in sorted(MODULE.glob("*.tf")):
        for one in blocks_of(MODULE, file.name).get("variable", []):
            for name, variable in one.items():
                found[name] = merged(folder, name, variable, given.get(name))
    return found


def merged(folder: Path, name: str, variable: dict[str, Any], given: Any) -> Any:
    parts = re.findall(r'(\w+) *= optional\(\w+, "?([^,"()]+)"?\)', str(variable.get("type", "")))
    if not parts:
        return value(folder, name, variable.get("default") if given is None else given)
    inside = given if isinstance(given, dict) else {}
    if given is not None and inside is not given:
        raise computed(folder, name)
    over = {part: value(folder, part, one) for part, one in inside.items()}
    return {part: written(text) for part, text in parts} | over


def written(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def value(folder: Path, name: str, found: Any) -> Any:
    if isinstance(found, str) and name in NEEDED:
        if (text := plain(found)) is None:
            raise computed(folder, name)
        return text
    return unquoted(found) if isinstance(found, str) else found


NEEDED = {"copies", "cpu", "memory", "class", "storage", "multi_az", "node_type", "nodes"}
NEEDED |= {"replicas", "pool_size"}


def computed(folder: Path, name: str) -> Stop:
    return Stop(f"{folder}/main.tf computes {name}. `make cost` reads what is written out only.")
