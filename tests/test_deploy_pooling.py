"""PgBouncer's files of the generated repo, read by other tools and against each other."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render

POOLED = {"stage": 2, "replica_routing": False}
FILES = (
    "deploy/capacity.toml",
    "deploy/pgbouncer.yaml",
    "deploy/pgbouncer.ini",
    "dev/pooling/budget.py",
    "dev/pooling/budget_aws.py",
    "dev/pooling/budget_postgres.py",
    "dev/pooling/capacity.py",
    "dev/pooling/lint.py",
    "dev/pooling/pgbouncer.py",
    "dev/pooling/targets.mk",
)


@pytest.fixture
def shop(render: Render) -> Path:
    return render(POOLED)


@pytest.fixture
def service(shop: Path) -> dict[str, Any]:
    compose = yaml.safe_load((shop / "deploy/pgbouncer.yaml").read_text())
    found: dict[str, Any] = compose["services"]["pgbouncer"]
    return found


@pytest.fixture
def bouncer(shop: Path) -> ConfigParser:
    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(shop / "deploy/pgbouncer.ini")
    return parser


def test_pooling_arrives_with_stage_2(render: Render, shop: Path) -> None:
    before = render({"stage": 1})
    assert [file for file in FILES if (before / file).exists()] == []
    assert [file for file in FILES if not (shop / file).exists()] == []
    assert "pooled" not in (before / "app/infra/connections.py").read_text()


def test_the_compose_part_follows_its_schema(shop: Path) -> None:
    schema = ("check-jsonschema", "--builtin-schema", "vendor.compose-spec")
    result = subprocess.run(
        [*schema, shop / "deploy/pgbouncer.yaml"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout


def test_the_image_is_of_one_version(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"[\w/]+:v\d+\.\d+\.\d+-p\d+", service["image"])


def test_the_container_reads_the_files_it_is_given(
    service: dict[str, Any], bouncer: ConfigParser, shop: Path
) -> None:
    [source, target, mode] = service["volumes"][0].split(":")
    assert (shop / "deploy" / source).is_file()
    assert service["entrypoint"][-1] == target
    assert mode == "ro,z"
    assert service["configs"][0]["target"] == bouncer["pgbouncer"]["auth_file"]
    assert bouncer["pgbouncer"]["listen_port"] in service["healthcheck"]["test"]


def test_pgbouncer_is_stopped_with_the_signal_that_lets_transactions_end(
    service: dict[str, Any],
) -> None:
    assert service["stop_signal"] == "SIGINT"


def test_its_databases_are_those_of_compose(bouncer: ConfigParser, shop: Path) -> None:
    stage = yaml.safe_load((shop / "deploy/postgres.yaml").read_text())
    assert list(bouncer["databases"]) == ["app", "app_read"]
    for connection in bouncer["databases"].values():
        assert connection.startswith("host=postgres port=5432 dbname=app ")
    assert "postgres" in stage["services"]


def test_sessions_begin_with_the_settings_that_the_app_expects(
    bouncer: ConfigParser, shop: Path
) -> None:
    connections = (shop / "app/infra/direct_postgres.py").read_text()
    assert "statement_seconds: Wait = 10\n" in connections
    assert '"idle_in_transaction_session_timeout": "30s"' in connections
    for name, read_only in (("app", "off"), ("app_read", "on")):
        assert bouncer["databases"][name].endswith(
            f"connect_query='SET default_transaction_read_only = {read_only};"
            " SET statement_timeout = 10000; SET idle_in_transaction_session_timeout = 30000;"
            " SET jit = off'"
        )


def test_the_container_may_open_as_many_files_as_it_has_connections(
    service: dict[str, Any], bouncer: ConfigParser
) -> None:
    limits = bouncer["pgbouncer"]
    servers = 2 * (int(limits["default_pool_size"]) + int(limits["reserve_pool_size"]))
    assert service["ulimits"]["nofile"] > int(limits["max_client_conn"]) + servers


NUMBERS: dict[str, dict[str, object]] = {
    "deploy/capacity.toml": {"copies": 7, "workers": 3, "direct": 5, "pooled": "true"},
    "deploy/pgbouncer.ini": {"max_client_conn": 900, "default_pool_size": 30},
}


@pytest.mark.parametrize(("here", "there"), [(2, 3), (3, 4)])
@pytest.mark.parametrize("file", NUMBERS)
def test_numbers_that_a_team_has_edited_survive_an_advance(
    render: Render, tmp_path: Path, file: str, here: int, there: int
) -> None:
    before, after = (render({"stage": stage}) / file for stage in (here, there))
    yours = before.read_text()
    written: dict[str, object] = {}
    for name, number in NUMBERS[file].items():
        yours, found = re.subn(rf"^{name} = .*$", f"{name} = {number}", yours, flags=re.M)
        written |= {name: number} if found else {}
    (tmp_path / "yours").write_text(yours)

    merged = subprocess.run(
        ["git", "merge-file", "--stdout", tmp_path / "yours", before, after],
        capture_output=True,
        text=True,
    )

    assert merged.returncode == 0, merged.stdout
    assert written
    for name, number in written.items():
        assert f"\n{name} = {number}\n" in merged.stdout


def test_the_linter_of_the_stage_is_one_of_make_check(shop: Path) -> None:
    planned = subprocess.run(
        ["make", "--dry-run", "check", "system-packages"],
        cwd=shop,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "pooling.lint" in planned
    assert "lint_migrations" in planned
    assert "install -qq -y --no-install-recommends pgbouncer" in planned


def test_as_many_pgbouncers_are_counted_as_kubernetes_runs(shop: Path) -> None:
    capacity = tomllib.loads((shop / "deploy/capacity.toml").read_text())
    manifests = yaml.safe_load_all(
        (shop / "deploy/kubernetes/pgbouncer/pgbouncer.yaml").read_text()
    )
    [deployment] = [one for one in manifests if one["kind"] == "Deployment"]

    assert capacity["pgbouncers"] == deployment["spec"]["replicas"] == 2


SIZES = """\
  copies            = 9
  replicas          = 3
  pgbouncer         = { copies = 3, pool_size = 20 }
  database          = { class = "db.t4g.small" }
  extra_environment = { DATABASE_READ_POOL = 4, DATABASE_WRITE_POOL = "2", OTHER = local.other }
"""

LARGE_POOLS = "  pgbouncer = { pool_size = 20 }\n"

SIZES_OF_MODULES = """\
  module_database   = { class = "db.m7g.large" }
  extra_environment = {
    MODULE_ORDERS_DATABASE_READ_POOL  = 5
    MODULE_ORDERS_DATABASE_WRITE_POOL = 1
  }
"""


@pytest.mark.slow
def test_the_budget_of_aws_takes_copies_and_sizes_from_the_environment(
    render: Render, tmp_path: Path
) -> None:
    """The packages of stage 4 are those of all stages."""
    stages = {2: True, 4: False}
    projects = {
        stage: shutil.copytree(
            render({"stage": stage, "replica_routing": replicas, "module_databases": stage == 4}),
            tmp_path / f"stage-{stage}",
        )
        for stage, replicas in stages.items()
    }
    groups = ("--no-default-groups", "--group=infra", "--group=infra-dev", "--group=deploy")
    subprocess.run(["sh", "dev/uv", "sync", "--quiet", *groups], cwd=projects[4], check=True)
    written = (projects[2] / "environments" / "production" / "main.tf").read_text()

    def budget(stage: int, given: str = "") -> subprocess.CompletedProcess[str]:
        main = projects[stage] / "environments" / "production" / "main.tf"
        image = "  image           = var.image\n"
        assert image in written
        main.write_text(written.replace(image, image + given))
        return subprocess.run(
            [projects[4] / ".venv" / "bin" / "python", "-m", "dev.pooling.budget"],
            cwd=projects[stage],
            # Settings of this machine do not count.
            env=os.environ
            | {
                "ENV": "production",
                "DATABASE_READ_POOL": "999",
                "MODULE_PARCELS_DATABASE_READ_POOL": "999",
            },
            capture_output=True,
            text=True,
            check=False,
        )

    for stage in stages:
        delivered = budget(stage)
        assert delivered.returncode == 0, delivered.stdout + delivered.stderr
        assert "  2 x 2 x (10 + 5) + 3" in delivered.stdout
        # db.t4g.micro; three are for superusers.
        assert re.search(r"Postgres at postgres.* 63 +73$", delivered.stdout, re.MULTILINE)
        assert "Postgres of " not in delivered.stdout

    orders = '  module_databases = ["orders"]\n'
    # Autoscaling may run 50 copies. PgBouncer is in front of a module's server too.
    delivered = budget(4, orders)
    assert delivered.returncode == 0, delivered.stdout + delivered.stderr
    pools = r"Postgres of orders +2 x 2 x \(10 \+ 5\) \+ 3 +63 +387$"
    assert re.search(pools, delivered.stdout, re.MULTILINE)
    clients = r"clients, modules' too +2500 \+ 100 x \(25\) +5000 +5000$"
    assert re.search(clients, delivered.stdout, re.MULTILINE)
    tight = budget(4, '  module_databases = ["orders", "catalog"]\n')
    assert tight.returncode == 1
    assert "set max_client_conn = 7500 in deploy/pgbouncer.ini" in tight.stderr
    tight = budget(4, orders + '  module_database = { class = "db.t4g.micro" }\n' + LARGE_POOLS)
    assert tight.returncode == 1
    assert "a larger class of module_database in environments/production/main.tf" in tight.stderr
    fits = budget(4, orders + SIZES_OF_MODULES)
    assert fits.returncode == 0, fits.stdout + fits.stderr
    assert re.search(r"clients, modules' too +2500 \+ 100 x \(7\) ", fits.stdout, re.MULTILINE)
    with_replicas = render({"stage": 4, "replica_routing": True, "module_databases": True})
    replica = "deploy/aws/module-databases-replica.tf"
    shutil.copy(with_replicas / replica, projects[4] / replica)
    of_replicas = orders + SIZES_OF_MODULES + "  module_replicas = { orders = 2 }\n"
    fits = budget(4, of_replicas)
    assert fits.returncode == 0, fits.stdout + fits.stderr
    assert "  2 x 1 x (10 + 5) + 3" in fits.stdout
    assert re.search(r"clients, modules' too +2500 \+ 100 x \(20\) ", fits.stdout, re.MULTILINE)
    # Where RDS Proxy is in front of the common database, the app's own pools lead to a module's.
    aws_of_4 = projects[4] / "deploy" / "aws"
    shutil.rmtree(aws_of_4)
    of_proxy = render({"stage": 4, "module_databases": True, "pooler": "rds_proxy"})
    shutil.copytree(of_proxy / "deploy" / "aws", aws_of_4)
    proxied = budget(4, orders + SIZES_OF_MODULES)
    assert re.search(r"Postgres of orders .* 703 +806$", proxied.stdout, re.MULTILINE)
    shutil.copy(with_replicas / replica, projects[4] / replica)
    proxied = budget(4, of_replicas)
    assert re.search(r"Postgres of orders .* 803 +806$", proxied.stdout, re.MULTILINE)
    assert re.search(r"each replica of orders .* 603 +806$", proxied.stdout, re.MULTILINE)

    larger = budget(2, SIZES)
    assert "9 copies x 2 during a deploy x 1 worker = 18 processes" in larger.stdout
    assert "  18 x (4 + 2 + 2 + 3 x (4 + 1))" in larger.stdout
    assert "  3 x 2 x (20 + 5) + 3" in larger.stdout
    assert re.search(r"Postgres at postgres.* 153 +178$", larger.stdout, re.MULTILINE)

    tight = budget(2, "  pgbouncer = { pool_size = 20 }\n")
    assert tight.returncode == 1
    assert "set pool_size = 12 of pgbouncer in environments/production/main.tf" in tight.stderr
    assert budget(2, "  pgbouncer = { pool_size = 12 }\n").returncode == 0
    assert budget(2, "  pgbouncer = { pool_size = 13 }\n").returncode == 1

    # Only files of Terraform differ.
    aws = projects[2] / "deploy" / "aws"
    with_proxy = render({"stage": 2, "replica_routing": True, "pooler": "rds_proxy"})
    shutil.rmtree(aws)
    shutil.copytree(with_proxy / "deploy" / "aws", aws)
    delivered = budget(2, "  copies = 1\n")
    assert delivered.returncode == 0, delivered.stdout + delivered.stderr
    assert "  2 x 40% of 76 + 3" in delivered.stdout
    assert re.search(r"Postgres .* 65 +73$", delivered.stdout, re.MULTILINE)
    assert re.search(
        r"each replica .*2 x \(16 \+ 1\) \+ 3 +37 +73$", delivered.stdout, re.MULTILINE
    )
    tight = budget(2, "  copies = 1\n  rds_proxy = { connections_percent = 50 }\n")
    assert tight.returncode == 1
    assert "set connections_percent = 46 of rds_proxy in environments/production" in tight.stderr
    percent = "  copies = 1\n  rds_proxy = { connections_percent = %s }\n"
    assert budget(2, percent % 46).returncode == 0
    assert budget(2, percent % 47).returncode == 1
    assert (
        "proxy_percent: Input should be less than or equal to 100"
        in budget(2, percent % 101).stderr
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("copies = 0", "main.tf is not right:\n  copies: Input should be greater than 0"),
        ("copies = local.many", "main.tf computes copies"),
        ('database = { class = "db.x9.huge" }', "The memory of db.x9.huge is not known"),
        ("extra_environment = local.all", "Write extra_environment as plain text in environments/"),
    ],
)
def test_a_size_that_cannot_be_counted_is_refused_in_words(
    shop: Path, tmp_path: Path, given: str, said: str
) -> None:
    for part in ("app", "deploy", "dev", "environments"):
        shutil.copytree(shop / part, tmp_path / part)
    main = tmp_path / "environments" / "production" / "main.tf"
    image = "  image           = var.image\n"
    main.write_text(main.read_text().replace(image, f"{image}  {given}\n"))

    done = subprocess.run(
        [sys.executable, "-c", "from dev.pooling import budget_aws; budget_aws.read('production')"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
