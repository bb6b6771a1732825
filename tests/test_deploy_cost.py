"""`make cost` of the generated repo."""

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
def test_the_table_has_what_the_stage_runs_and_adds_up(
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

    assert found["app"] == pytest.approx(3 * (0.04048 + 2 * 0.004445 + 0.005) * 730, abs=0.01)
    assert found["Postgres"] == pytest.approx(2 * (0.065 * 730 + 50 * 0.115), abs=0.01)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ('database = { class = "db.x9.huge" }', "has no price of db.x9.huge. Add it under"),
        ("database = local.sizes", "main.tf computes database"),
        ("copies = var.copies", "main.tf computes copies"),
    ],
)
def test_what_has_no_price_is_one_line(
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
        *("fargate", "load balancer", "addresses", "Postgres", "Valkey", "secrets")
    }
    defaults = (project / "deploy" / "aws" / "variables.tf").read_text()
    assert any(size in defaults for size in prices["postgres"])
