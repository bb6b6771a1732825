"""`make cost` of the generated repo."""

import gzip
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import Render
from variants import VARIANTS, variant_name

STATES = Path(__file__).with_name("aws-states")

GIVEN = """\
  copies          = 3
  cpu             = 1024
  memory          = 2048
  database        = { class = "db.t4g.medium", storage = 50, multi_az = true }
"""


def cost(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dev.deploy", "cost"],
        cwd=project,
        # The folder is shared, and a test looks for files that git would ignore.
        env=os.environ | {"ENV": "production", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def parts(said: str) -> dict[str, float]:
    rows = [line for line in said.splitlines() if line.startswith("  ")]
    return {line[2:].split("  ")[0]: float(line.split()[-1]) for line in rows}


@pytest.mark.parametrize("variant", [VARIANTS[0], VARIANTS[-1]], ids=variant_name)
def test_the_table_lists_all_that_the_stage_runs_and_its_sum_is_right(
    render: Render, variant: Mapping[str, Any]
) -> None:
    done = cost(render(variant))

    assert done.returncode == 0, done.stderr
    found = parts(done.stdout)
    total = found.pop("together")
    assert total == pytest.approx(sum(found.values()), abs=0.1)
    later = {"PgBouncer", "replicas", "cache", "sessions"} if variant["stage"] == 4 else set()
    assert set(found) == {"app", "load balancer", "Postgres", "secrets"} | later
    assert "Left out: traffic" in done.stdout


def test_a_proxy_costs_by_the_processors_of_its_database(render: Render, tmp_path: Path) -> None:
    project = shutil.copytree(render({"stage": 2, "pooler": "rds_proxy"}), tmp_path / "shop")

    found = parts(cost(project).stdout)

    assert "PgBouncer" not in found
    assert found["RDS Proxy"] == pytest.approx(2 * 2 * 0.015 * 730, abs=0.01)
    assert found["secrets"] == pytest.approx(3 * 0.4, abs=0.01)
    after = shown(2)
    address = 'module.service.aws_db_proxy.main["app"]'
    proxy = {"address": address, "mode": "managed", "type": "aws_db_proxy", "values": {}}
    after["root_module"]["child_modules"][0]["resources"].append(proxy)
    said = change(project, {"prior_state": {"values": shown(2)}, "planned_values": after})
    assert said.splitlines()[1].split() == ['aws_db_proxy.main["app"]', "+21.90"]
    sizes = "import sys; from dev.deploy.cost import vcpus; print(*map(vcpus, sys.argv[1:]))"
    classes = ["db.t4g.micro", "db.m7g.large", "db.r7g.xlarge", "db.m7g.4xlarge"]
    known = subprocess.run(
        [sys.executable, "-c", sizes, *classes],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    assert known.stdout == "2 2 4 16\n"


def test_x86_costs_more_than_graviton(render: Render, tmp_path: Path) -> None:
    old = "  image           = var.image\n"
    project = changed(render, tmp_path, old, f'{old}  architecture = "X86_64"\n')

    found = parts(cost(project).stdout)

    assert found["app"] == pytest.approx((0.5 * 0.04048 + 0.004445 + 0.005) * 730, abs=0.01)


def changed(render: Render, tmp_path: Path, old: str, new: str) -> Path:
    project = shutil.copytree(render({"stage": 1}), tmp_path / "shop")
    main = project / "environments" / "production" / "main.tf"
    assert old in main.read_text()
    main.write_text(main.read_text().replace(old, new))
    return project


def test_the_environments_own_sizes_count(render: Render, tmp_path: Path) -> None:
    project = changed(
        render, tmp_path, "  image           = var.image\n", f"  image = var.image\n{GIVEN}"
    )

    found = parts(cost(project).stdout)

    assert found["app"] == pytest.approx(3 * (0.03238 + 2 * 0.00356 + 0.005) * 730, abs=0.01)
    assert found["Postgres"] == pytest.approx(2 * (0.065 * 730 + 50 * 0.115), abs=0.01)


@pytest.mark.slow
def test_each_module_with_its_own_postgres_costs_one_and_two_secrets(
    render: Render, tmp_path: Path
) -> None:
    variant = {"stage": 4, "replica_routing": True, "module_databases": True}
    project = shutil.copytree(render(variant), tmp_path / "shop")
    main = project / "environments" / "production" / "main.tf"
    image = "  image           = var.image\n"
    assert image in main.read_text()
    names = '  module_databases = ["orders", "catalog"]\n  module_database = { multi_az = true }\n'
    names += "  module_replicas = { orders = 2, catalog = 1 }\n"
    main.write_text(main.read_text().replace(image, image + names))

    found = parts(cost(project).stdout)

    assert found["modules' Postgres"] == pytest.approx(4 * (0.065 * 730 + 20 * 0.115), abs=0.01)
    assert found["modules' replicas"] == pytest.approx(3 * (0.065 * 730 + 20 * 0.115), abs=0.01)
    assert found["secrets"] == pytest.approx(6 * 0.4, abs=0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('database = { class = "db.x9.huge" }', "has no price of db.x9.huge. Add it under"),
        ("database = local.sizes", "main.tf computes database"),
        ("copies = var.copies", "main.tf computes copies"),
    ],
)
def test_a_missing_price_is_reported_in_one_line(
    render: Render, tmp_path: Path, given: str, said: str
) -> None:
    old = "  image           = var.image\n"
    done = cost(changed(render, tmp_path, old, f"{old}  {given}\n"))

    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_each_price_has_a_source_and_all_have_a_date(render: Render) -> None:
    project = render({"stage": 1})
    prices = tomllib.loads((project / "dev" / "deploy" / "prices.toml").read_text())

    assert prices["as_of"]
    assert set(prices["sources"]) == {
        *("fargate", "load balancer", "addresses", "RDS Proxy", "Postgres", "Valkey", "secrets")
    }
    defaults = (project / "deploy" / "aws" / "variables.tf").read_text()
    assert any(size in defaults for size in prices["postgres"])
    assert f'default     = "{next(iter(prices["fargate"]))}"' in defaults


def shown(stage: int) -> dict[str, Any]:
    """An applied state, as `terraform show -json` writes it. It was recorded before Graviton."""
    state = json.loads(gzip.decompress((STATES / f"stage-{stage}.json.gz").read_bytes()))
    resources = [
        {
            "address": f"{one['module']}.{one['type']}.{one['name']}",
            "mode": one["mode"],
            "type": one["type"],
            "values": instance["attributes"],
        }
        for one in state["resources"]
        for instance in one["instances"]
    ]
    for one in resources:
        if one["type"] == "aws_ecs_task_definition":
            one["values"]["runtime_platform"] = [{"cpu_architecture": "ARM64"}]
    return {"root_module": {"child_modules": [{"resources": resources}]}}


def change(project: Path, plan: dict[str, Any]) -> str:
    return subprocess.run(
        [sys.executable, "-c", CHANGE],
        cwd=project,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        input=json.dumps(plan),
        capture_output=True,
        text=True,
        check=True,
    ).stdout


CHANGE = "import json, sys; from dev.deploy import cost; print(cost.change(json.load(sys.stdin)))"


def test_a_plan_shows_the_cost_before_and_after_and_what_changes_it(render: Render) -> None:
    plan = {"prior_state": {"values": shown(1)}, "planned_values": shown(4)}

    first, *lines = change(render({"stage": 4}), plan).splitlines()

    costs = [parts(cost(render({"stage": stage})).stdout)["together"] for stage in (1, 4)]
    assert first.startswith(f"Cost: {costs[0]:.2f} -> {costs[1]:.2f} US dollars a month")
    changed = {line.split()[0]: float(line.split()[1]) for line in lines}
    assert set(changed) == {
        "aws_ecs_service.app",
        "aws_ecs_service.pgbouncer",
        "aws_elasticache_replication_group.cache",
        "aws_elasticache_replication_group.sessions",
    }
    assert sum(changed.values()) == pytest.approx(costs[1] - costs[0], abs=0.03)


def test_a_smaller_size_costs_less_and_a_first_plan_costs_all_of_it(render: Render) -> None:
    before, after = shown(1), shown(1)
    for one in before["root_module"]["child_modules"][0]["resources"]:
        if one["type"] == "aws_db_instance":
            one["values"] |= {"instance_class": "db.t4g.small", "multi_az": True}
    project = render({"stage": 1})

    smaller = change(project, {"prior_state": {"values": before}, "planned_values": after})
    [line] = smaller.splitlines()[1:]
    assert line.split() == ["aws_db_instance.main", f"{13.98 - 51.32:.2f}"]
    assert change(project, {"planned_values": after}).startswith("Cost: 0.00 -> ")


def test_a_replica_that_is_not_there_yet_has_the_storage_of_its_primary(render: Render) -> None:
    after = shown(2)
    resources = after["root_module"]["child_modules"][0]["resources"]
    replica = {"instance_class": "db.t4g.micro", "replicate_source_db": "shop-production"}
    servers = {
        'module["orders"]': {"instance_class": "db.t4g.micro", "allocated_storage": 100},
        'module_replica["orders-replica-1"]': replica,
        "replica[0]": replica,
    }
    for name, values in servers.items():
        address = f"module.service.aws_db_instance.{name}"
        resources.append(
            {"address": address, "mode": "managed", "type": "aws_db_instance", "values": values}
        )

    said = change(
        render({"stage": 2}), {"prior_state": {"values": shown(2)}, "planned_values": after}
    )

    costs = [line.split()[1] for line in said.splitlines()[1:]]
    assert costs == ["+23.18", "+23.18", "+13.98"]


def test_a_size_without_a_price_stops_no_plan(render: Render) -> None:
    after = shown(1)
    for one in after["root_module"]["child_modules"][0]["resources"]:
        if one["type"] == "aws_db_instance":
            one["values"]["instance_class"] = "db.x9.huge"

    said = change(render({"stage": 1}), {"planned_values": after})

    assert said.startswith("The change of the cost is not known. dev/deploy/prices.toml has no ")
