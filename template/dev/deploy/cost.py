# Rung's file: advancing to another stage may change it.
"""The monthly cost of an environment: `make cost` reads its variables, a plan its resources."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dev.deploy.environment import block_of, blocks_of, plain, unquoted
from dev.deploy.programs import Stop

MODULE = Path("deploy/aws")
MODULE_ADDRESS = "module.service."
PRICES = Path("dev/deploy/prices.toml")
LEFT_OUT = (
    "Left out: traffic, requests, logs, traces, metrics, stored files (EFS, S3), images, backups\n"
    "beyond the size of the database, tax, and every discount."
)

# deploy/aws/rds-proxy.tf.
PROXIES = 2
# deploy/aws/module-databases.tf: the password, and the URL with it.
SECRETS_OF_A_MODULE = 2
PRIMARY_OF = (r'module_replica\["(\w+)-replica-\d+"\]', r'module["\1"]')

# The variables that count. Their values must be literal.
NEEDED = {"copies", "cpu", "memory", "class", "storage", "multi_az", "node_type", "nodes"}
NEEDED |= {"replicas", "pool_size", "architecture", "module_databases", "module_replicas"}

type Row = tuple[str, str, float]


def cost(folder: Path) -> str:
    prices = read_prices()
    found = list(rows(settings(folder), prices))
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


def rows(variables: dict[str, Any], prices: dict[str, Any]) -> Iterator[Row]:
    database, cpu, memory = variables["database"], variables["cpu"], variables["memory"]

    def task(cpu: float, memory: float) -> float:
        return task_of(prices, variables["architecture"], cpu, memory)

    def postgres(name: str, count: int, of: dict[str, Any] = database) -> Row:
        size, storage = of["class"], of["storage"]
        money = count * postgres_of(prices, size, storage)
        return name, f"{count} x {size}, {storage} GB", money

    copies = least_copies(variables["copies"])
    size = f"{copies} x {cpu / 1024:g} vCPU, {memory / 1024:g} GB, with address"
    yield "app", size, copies * task(cpu, memory)
    yield "load balancer", "2 addresses", balancer_of(prices)
    yield postgres("Postgres", 2 if database["multi_az"] else 1)
    modules = variables.get("module_databases", [])
    replicas_of_modules = variables.get("module_replicas", {})
    secrets = 2 + SECRETS_OF_A_MODULE * len(modules)
    if "rds_proxy" in variables:
        secrets += 1 + len(replicas_of_modules)
    yield "secrets", f"{secrets}", secrets * prices["monthly"]["secret"]
    if "rds_proxy" in variables:
        size = f"{PROXIES} x {vcpus(database['class'])} vCPU"
        yield "RDS Proxy", size, PROXIES * proxy_of(prices, database["class"])
    if "pgbouncer" in variables:
        count = variables["pgbouncer"]["copies"]
        yield "PgBouncer", f"{count} x 0.25 vCPU, 0.5 GB", count * task(256, 512)
    if "replicas" in variables:
        yield postgres("replicas", variables["replicas"])
    if modules:
        own = variables["module_database"]
        yield postgres("modules' Postgres", len(modules) * (2 if own["multi_az"] else 1), own)
    if replicas_of_modules:
        count = sum(replicas_of_modules.values())
        yield postgres("modules' replicas", count, variables["module_database"])
    for name in ("cache", "sessions"):
        if name in variables:
            nodes, node_type = variables[name]["nodes"], variables[name]["node_type"]
            yield name, f"{nodes} x {node_type}", valkey_of(prices, node_type, nodes)


def read_prices() -> dict[str, Any]:
    return tomllib.loads(Path(__file__).with_name(PRICES.name).read_text(encoding="utf-8"))


def task_of(prices: dict[str, Any], architecture: str, cpu: float, memory: float) -> float:
    hourly = prices["fargate"][architecture]
    computing = cpu / 1024 * hourly["vcpu"] + memory / 1024 * hourly["memory_gb"]
    return float((computing + prices["hourly"]["address"]) * prices["hours"])


def postgres_of(prices: dict[str, Any], size: str, storage: float) -> float:
    server = priced(prices, "postgres", size) * prices["hours"]
    return float(server + storage * prices["monthly"]["storage_gb"])


def proxy_of(prices: dict[str, Any], size: str) -> float:
    """AWS bills a proxy by the processors of its database."""
    return float(vcpus(size) * prices["hourly"]["proxy_vcpu"] * prices["hours"])


def vcpus(size: str) -> int:
    found = re.search(r"\.(?:(\d+)(?=xlarge))?(\w+)$", size)
    return 4 * int(found[1] or 1) if found and found[2] == "xlarge" else 2


def valkey_of(prices: dict[str, Any], size: str, nodes: int) -> float:
    return float(nodes * priced(prices, "valkey", size) * prices["hours"])


def balancer_of(prices: dict[str, Any]) -> float:
    hourly = prices["hourly"]
    return float((hourly["load_balancer"] + 2 * hourly["address"]) * prices["hours"])


def change(plan: dict[str, Any]) -> str:
    """The cost before and after a plan of Terraform, and that of each resource that changes."""
    prices = read_prices()
    try:
        before = costs(plan.get("prior_state", {}).get("values", {}), prices)
        after = costs(plan.get("planned_values", {}), prices)
    except Stop as stop:
        return f"The change of the cost is not known. {stop}"
    differences = {
        name: after.get(name, 0) - before.get(name, 0) for name in sorted({*before, *after})
    }
    changed = {name: money for name, money in differences.items() if abs(money) >= 0.005}
    width = max(map(len, changed), default=0)
    lines = [f"  {name:{width}}  {money:>+8.2f}" for name, money in changed.items()]
    was, will = sum(before.values()), sum(after.values())
    total = f"{was:.2f} -> {will:.2f} US dollars a month, without traffic (`make cost`)"
    return "\n".join([f"Cost: {total}", *lines])


def costs(state: dict[str, Any], prices: dict[str, Any]) -> dict[str, float]:
    """The cost of each resource in a state or plan, as `terraform show -json` writes it."""
    found = {one["address"]: one for one in resources(state.get("root_module", {}))}
    primary = found.get(f"{MODULE_ADDRESS}aws_db_instance.main", {"values": {}})["values"]

    def cost_of(address: str, resource: dict[str, Any]) -> float:
        values = resource["values"]
        match resource["type"]:
            case "aws_db_instance":
                # A replica's storage is known once it exists. Until then it is the primary's.
                its = found.get(re.sub(*PRIMARY_OF, address), resource)["values"]
                sizes = [one.get("allocated_storage") for one in (values, its, primary)]
                storage = next(filter(None, sizes), 0)
                servers = 2 if values.get("multi_az") else 1
                return servers * postgres_of(prices, values["instance_class"], storage)
            case "aws_db_proxy":
                return proxy_of(prices, primary.get("instance_class", ""))
            case "aws_elasticache_replication_group":
                return valkey_of(prices, values["node_type"], values.get("num_cache_clusters") or 1)
            case "aws_lb":
                return balancer_of(prices)
            case "aws_secretsmanager_secret":
                return float(prices["monthly"]["secret"])
            case "aws_ecs_service":
                task = found.get(address.replace("aws_ecs_service", "aws_ecs_task_definition"))
                target = found.get(address.replace("aws_ecs_service", "aws_appautoscaling_target"))
                count = target["values"]["min_capacity"] if target else values["desired_count"]
                if task:  # A service of the team's may have another name than its task.
                    cpu, memory = (int(task["values"][name]) for name in ("cpu", "memory"))
                    platform = (task["values"].get("runtime_platform") or [{}])[0]
                    architecture = platform.get("cpu_architecture") or "X86_64"
                    return float(count * task_of(prices, architecture, cpu, memory))
        return 0

    return {
        address.removeprefix(MODULE_ADDRESS): cost_of(address, resource)
        for address, resource in found.items()
    }


def resources(module: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (one for one in module.get("resources", []) if one["mode"] == "managed")
    for child in module.get("child_modules", []):
        yield from resources(child)


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
    given = block_of(blocks_of(folder), "module", "service")
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


def computed(folder: Path, name: str) -> Stop:
    return Stop(f"{folder}/main.tf computes {name}. `make cost` reads literal values only.")
