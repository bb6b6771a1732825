"""deploy/aws of the generated repo: the provider accepts it, and an advance keeps its resources."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
import pytest
import yaml
from conftest import Render, until
from variants import JOURNEYS, VARIANTS, WITH_RDS_PROXY, Journey, described, variant_name

# Parsing the module takes 2 to 3 s in each test.
pytestmark = pytest.mark.slow

ON_AWS = [*VARIANTS, WITH_RDS_PROXY]

type Block = dict[str, Any]

# The arguments that the provider accepts, made from `terraform providers schema -json` of aws
# 5.100.0.
SCHEMA: dict[str, dict[str, Block]] = json.loads(
    Path(__file__).with_name("aws-schema.json").read_text(encoding="utf-8")
)
META = {"count", "for_each", "depends_on", "lifecycle", "provider", "__is_block__", "__comments__"}

HOLDS_DATA = {
    "aws_db_instance.main",
    "aws_ecr_repository.app",
    "aws_efs_file_system.files",
    "aws_secretsmanager_secret.database",
    "aws_secretsmanager_secret.secret_key",
}
HOLDS_DATA_LATER = {"aws_elasticache_replication_group.sessions", "aws_s3_bucket.files"}
HOLDS_DATA_OF_MODULES = {"aws_db_instance.module", "aws_secretsmanager_secret.module"}

# AWS keeps what these hold until a rule ends it.
GROWS = ("aws_cloudwatch_log_group", "aws_ecr_repository", "aws_s3_bucket_versioning")

# Read by asyncpg, because the URL has no password.
NOT_OF_THE_APP = {"PGPASSWORD"}

# The folders in which Terraform keeps providers, so that the tests need no internet.
PLUGIN_FOLDERS = (Path.home() / ".terraform.d/plugins", *Path("/usr").glob("*/terraform/plugins"))
PLUGINS = [
    provider.parents[2]
    for folder in (*PLUGIN_FOLDERS, *Path("/opt").glob("*"))
    for provider in folder.glob("*/hashicorp/aws")
]


def module(project: Path) -> str:
    return "".join(texts(project))


def texts(project: Path) -> list[str]:
    return [file.read_text() for file in sorted((project / "deploy" / "aws").glob("*.tf"))]


@cache
def parsed(text: str) -> Block:
    """Most files are the same at every stage, so they are parsed once."""
    return hcl2.loads(text)


def blocks(text: str) -> Iterator[tuple[str, str, str, Block]]:
    """resource, aws_lb, main, and what it says"""
    for sort in SCHEMA:
        for one in parsed(text).get(sort, []):
            for kind, named in one.items():
                for name, body in named.items():
                    yield sort, kind.strip('"'), name.strip('"'), body


def resources(project: Path) -> dict[str, Block]:
    return {
        f"{kind}.{name}": body
        for text in texts(project)
        for sort, kind, name, body in blocks(text)
        if sort == "resource"
    }


def unknown(body: Block, schema: Block, place: str) -> Iterator[str]:
    for name, value in body.items():
        inner = schema.get("blocks", {}).get(name)
        if name == "dynamic":
            for one in value:
                for label, dynamic in one.items():
                    content = {label.strip('"'): dynamic["content"]}
                    yield from unknown(content, schema, place)
        elif inner is not None:
            for one in value:
                yield from unknown(one, inner, f"{place}.{name}")
        elif name not in META and name not in schema["attributes"]:
            yield f"{place}.{name}"


def unknown_names(files: list[str]) -> list[str]:
    return [
        name
        for text in files
        for sort, kind, label, body in blocks(text)
        for name in unknown(body, SCHEMA[sort][kind], f"{kind}.{label}")
    ]


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_the_provider_knows_each_name(render: Render, variant: dict[str, Any]) -> None:
    assert unknown_names(texts(render(variant))) == []


def test_a_misspelt_name_is_found(render: Render) -> None:
    aws = render({"stage": 1}) / "deploy" / "aws"
    database = (aws / "database.tf").read_text().replace("deletion_protection", "delete_protection")
    balancer = (aws / "load-balancer.tf").read_text().replace("matcher ", "match ")

    assert unknown_names([database, balancer]) == [
        "aws_db_instance.main.delete_protection",
        "aws_lb_target_group.app.health_check.match",
    ]


@pytest.mark.parametrize("journey", JOURNEYS, ids=described)
def test_an_advance_removes_no_resource_and_changes_none(render: Render, journey: Journey) -> None:
    """Addresses stay the same, and only a local of stage.tf can change an existing resource."""
    before, after = resources(render(journey[0])), resources(render(journey[-1]))

    assert {name: after.get(name) for name in before} == before


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_resources_that_hold_data_depend_on_the_stage_only_in_their_logs(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    stage = (project / "deploy/aws/stage.tf").read_text()
    changing = set(re.findall(r"^  (\w+) += ", stage, re.MULTILINE))

    found = resources(project)

    holding = HOLDS_DATA | (HOLDS_DATA_LATER if variant["stage"] == 4 else set())
    holding |= HOLDS_DATA_OF_MODULES if variant.get("module_databases") else set()
    for name in holding:
        body = found[name]
        used = set(re.findall(r"local\.(\w+)", json.dumps(body)))
        assert used & changing <= {"database_logs"}, name
        assert body["lifecycle"][0]["prevent_destroy"] is True, name


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_the_task_gets_only_settings_that_the_app_of_its_stage_knows(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    locals_of_it = re.findall(r"^locals \{$.*?^\}$", module(project), re.MULTILINE | re.DOTALL)
    given = set(re.findall(r"\b([A-Z]+(?:_[A-Z0-9]+)+|PGPASSWORD) += ", "".join(locals_of_it)))
    known = re.findall(
        r"^# ([A-Z_0-9]+)=", (project / "deploy/env.example").read_text(), re.MULTILINE
    )

    assert given >= {"DATABASE_URL", "SECRET_KEY", "PGPASSWORD", "FORWARDED_ALLOW_IPS"}
    assert given - set(known) == NOT_OF_THE_APP


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_each_environment_that_a_capability_adds_is_used(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    added = set(re.findall(r"^  (\w+_environment) += ", module(project), re.MULTILINE))
    stage = (project / "deploy/aws/stage.tf").read_text()

    # The collector has its own environment.
    assert added - set(re.findall(r"local\.(\w+)", stage)) <= {"collector_environment"}


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_no_secret_is_written_where_the_state_keeps_it(
    render: Render, variant: dict[str, Any]
) -> None:
    text = module(render(variant))
    assert (
        re.findall(r"^ +(secret_string|password|auth_token|master_password) +=", text, re.M) == []
    )
    for output in re.findall(r"^output .*?^\}$", text, re.MULTILINE | re.DOTALL):
        assert "secret" not in output


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_no_arn_names_a_partition(render: Render, variant: dict[str, Any]) -> None:
    """In GovCloud an ARN begins with arn:aws-us-gov:, in China with arn:aws-cn:."""
    of_the_files_that_runbooks_fill_in = '"arn:aws:s3:::BUCKET", aws_s3_bucket.files.arn'
    text = module(render(variant)).replace(of_the_files_that_runbooks_fill_in, "")

    assert re.findall(r"arn:aws\b.*", text) == []


def test_no_resource_depends_on_a_switch(render: Render) -> None:
    counts = re.findall(r"^  count +=.*$", module(render(VARIANTS[-1])), re.MULTILINE)
    assert counts
    assert [line for line in counts if "?" in line] == []


def test_each_log_image_and_deleted_file_goes_some_day(render: Render) -> None:
    project = render({"stage": 4})
    found = resources(project)
    of_kind = {kind: [one for one in found if one.startswith(f"{kind}.")] for kind in GROWS}

    for log in of_kind["aws_cloudwatch_log_group"]:
        assert found[log]["retention_in_days"] > 0, log
    for repository in of_kind["aws_ecr_repository"]:
        policy = found[repository.replace("repository", "lifecycle_policy")]
        assert repository in policy["repository"]
        assert "imageCountMoreThan" in json.dumps(policy)
    for versioned in of_kind["aws_s3_bucket_versioning"]:
        lifecycle = found[versioned.replace("versioning", "lifecycle_configuration")]
        ends = [one for rule in lifecycle["rule"] for one in rule["noncurrent_version_expiration"]]
        # A restored row may name a deleted file, so the file stays for as long as the backups.
        assert [unquoted(one["noncurrent_days"]) for one in ends] == ["${var.database.backup_days}"]
    assert all(of_kind.values())
    # The collector makes its own group.
    collector = yaml.safe_load((project / "deploy/telemetry/aws.yaml").read_text())
    assert collector["exporters"]["awsemf"]["log_retention"] > 0
    assert "PutRetentionPolicy" in found["aws_iam_role_policy.app_telemetry"]["policy"]


def test_the_load_balancer_uses_the_numbers_of_its_toml(render: Render) -> None:
    project = render({"stage": 4})
    toml = tomllib.loads((project / "deploy/load-balancer.toml").read_text())
    found = resources(project)
    balancer, group = found["aws_lb.main"], found["aws_lb_target_group.app"]
    service, listener = found["aws_ecs_service.app"], found["aws_lb_listener.https"]

    def said(body: Block, names: dict[str, Any]) -> dict[str, Any]:
        return {name: unquoted(body[name]) for name in names}

    assert said(balancer, toml["load_balancer"]) == toml["load_balancer"]
    https = {name: toml["listener"][name] for name in ("port", "protocol", "ssl_policy")}
    assert said(listener, https) == https
    check = toml["target_group"].pop("health_check")
    assert toml["target_group"].pop("stickiness") is False
    assert "stickiness" not in group
    assert said(group, toml["target_group"]) == toml["target_group"]
    assert said(group["health_check"][0], check) == check
    wanted = toml["ecs_service"]
    breaker = service["deployment_circuit_breaker"][0]
    assert {name: breaker[name] for name in wanted["deployment_circuit_breaker"]} == wanted[
        "deployment_circuit_breaker"
    ]
    assert service["deployment_minimum_healthy_percent"] == wanted["minimum_healthy_percent"]
    assert service["deployment_maximum_percent"] == wanted["maximum_percent"]
    assert (
        service["health_check_grace_period_seconds"] == wanted["health_check_grace_period_seconds"]
    )
    assert f"stopTimeout            = {toml['ecs_container']['stop_timeout']}\n" in module(project)


def unquoted(value: Any) -> Any:
    return value.strip('"') if isinstance(value, str) else value


# PyPI and Debian have no Terraform, so the tests below say so where it is missing.
needs_terraform = pytest.mark.skipif(
    shutil.which("terraform") is None or not PLUGINS,
    reason="TERRAFORM IS MISSING: install it, with provider aws 5.100 in ~/.terraform.d/plugins",
)


def terraform(*arguments: str, cwd: Path, typed: str | None = None) -> str:
    # The variable may name a file that is not there, and then each command warns.
    environment = {**os.environ, "TF_CLI_CONFIG_FILE": "", "CHECKPOINT_DISABLE": "1"}
    done = subprocess.run(
        ["terraform", *arguments],
        cwd=cwd,
        env=environment,
        input=typed,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@needs_terraform
@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_terraform_finds_nothing_to_format(render: Render, variant: dict[str, Any]) -> None:
    assert terraform("fmt", "-check", "-recursive", cwd=render(variant)) == ""


@needs_terraform
@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_terraform_finds_production_valid(
    render: Render, variant: dict[str, Any], tmp_path: Path
) -> None:
    shop = shutil.copytree(render(variant), tmp_path / "shop")
    production = shop / "environments" / "production"
    terraform("init", "-backend=false", "-input=false", f"-plugin-dir={PLUGINS[0]}", cwd=production)

    assert json.loads(terraform("validate", "-json", cwd=production))["diagnostics"] == []


def evaluated(project: Path, folder: Path, file: str, name: str, *more: str) -> str:
    """A local of these files, or a list of them, without a provider: servers have made-up names."""
    for conf in ("postgres.conf", "pgbouncer.ini"):
        shutil.copy(project / "deploy" / conf, folder)
    text = "".join((project / "deploy/aws" / one).read_text() for one in (file, *more))
    found = re.findall(r"^locals \{$.*?^\}$", text, re.MULTILINE | re.DOTALL)
    assert len(found) == 1 + len(more)
    only = "\n".join(found).replace("aws_db_instance.module[module].address", '"at-${module}"')
    only = re.sub(r"aws_\w+\.main\.(\w+)", r'"main.\1"', only)
    only = re.sub(r'aws_db_proxy\.main\["(\w+)"\]\.endpoint', r'"\1.proxy"', only)
    arn = r"aws_secretsmanager_secret\.(module\w*)\[module\]\.arn"
    only = re.sub(arn, r'"\1 ${module}"', only)
    only = re.sub(r"var\.module_databases\w*", '["orders", "long_name"]', only)
    only = only.replace("var.pgbouncer.pool_size", "7")
    only = only.replace("var.module_database.password_version", "1")
    given = 'locals {\n  database_url = ""\n  replica_hosts = ["one", "two"]\n'
    replicas = (project / "deploy/aws/module-databases-replica.tf").exists()
    hosts = '{ orders = ["three", "four"] }' if replicas else "{}"
    given += f"  module_replica_hosts = {hosts}\n"
    given += f"  pooled_modules = {'local.module_pgbouncer_lines' if more else '[]'}\n"
    given += f"  pooled_passwords = {'local.module_pgbouncer_secrets' if more else '{}'}\n}}\n"
    what = name if "local." in name else f"local.{name}"
    (folder / "aws").mkdir()
    (folder / "aws" / "main.tf").write_text(only + "\n" + given)
    return terraform("console", cwd=folder / "aws", typed=f"jsonencode({what})\n")


@needs_terraform
def test_rds_gets_the_settings_of_postgres_conf(render: Render, tmp_path: Path) -> None:
    said = evaluated(render({"stage": 2}), tmp_path, "slow-queries.tf", "slow_query_parameters")

    assert json.loads(json.loads(said)) == {
        "auto_explain.log_min_duration": "-1",
        "auto_explain.log_parameter_max_length": "0",
        "auto_explain.log_settings": "1",
        "log_error_verbosity": "terse",
        "log_lock_waits": "1",
        "log_min_duration_statement": "200",
        "log_parameter_max_length": "0",
        "log_parameter_max_length_on_error": "0",
        "log_temp_files": "10240",
        "pg_stat_statements.track_utility": "0",
        "track_io_timing": "1",
    }


def test_a_choice_of_pooler_changes_no_other_resource(render: Render) -> None:
    bouncer = resources(render({**WITH_RDS_PROXY, "pooler": "pgbouncer"}))
    proxy = resources(render(WITH_RDS_PROXY))

    assert bouncer.keys() - proxy.keys() == {
        "aws_ecs_service.pgbouncer",
        "aws_ecs_task_definition.pgbouncer",
        "aws_security_group.pgbouncer",
        "aws_service_discovery_private_dns_namespace.main",
        "aws_service_discovery_service.pgbouncer",
        "aws_vpc_security_group_egress_rule.pgbouncer",
        "aws_vpc_security_group_ingress_rule.database_from_pgbouncer",
        "aws_vpc_security_group_ingress_rule.module_from_pgbouncer",
        "aws_vpc_security_group_ingress_rule.pgbouncer_from_app",
    }
    both = bouncer.keys() & proxy.keys()
    assert {name: bouncer[name] for name in both} == {name: proxy[name] for name in both}
    assert proxy["aws_db_proxy.main"]["require_tls"] is True


@needs_terraform
def test_each_proxy_begins_its_sessions_as_an_alias_of_pgbouncer(
    render: Render, tmp_path: Path
) -> None:
    project = render(WITH_RDS_PROXY)
    ini = (project / "deploy/pgbouncer.ini").read_text()

    said = json.loads(json.loads(evaluated(project, tmp_path, "rds-proxy.tf", "rds_proxies")))

    assert set(said) == {"app", "app_read"}
    for alias, query in said.items():
        assert f"\n{alias} = host=postgres port=5432 dbname=app connect_query='{query}'\n" in ini
    assert "default_transaction_read_only = on" in said["app_read"]


@needs_terraform
def test_with_rds_proxy_the_app_reads_from_the_replicas_themselves(
    render: Render, tmp_path: Path
) -> None:
    said = evaluated(render(WITH_RDS_PROXY), tmp_path, "rds-proxy.tf", "pooler_replica_urls")

    assert json.loads(json.loads(said)) == [
        "postgresql://app@one:5432/app",
        "postgresql://app@two:5432/app",
    ]


MODULES = {"stage": 4, "module_databases": True}
BOUNCED = "module-databases-pgbouncer.tf"
DIRECT = "module-databases-direct.tf"


@needs_terraform
def test_with_rds_proxy_the_app_gets_the_url_of_each_module_in_use(
    render: Render, tmp_path: Path
) -> None:
    project = render({**MODULES, "pooler": "rds_proxy"})
    said = evaluated(project, tmp_path, DIRECT, "module_secrets")

    assert not (project / "deploy/aws" / BOUNCED).exists()
    assert json.loads(json.loads(said)) == {
        "MODULE_LONG_NAME_DATABASE_URL": "module_url long_name",
        "MODULE_ORDERS_DATABASE_URL": "module_url orders",
    }


@needs_terraform
def test_the_app_reaches_each_module_in_use_by_pgbouncer(render: Render, tmp_path: Path) -> None:
    project = render(MODULES)
    both = "[local.module_environment, local.module_secrets]"
    said = evaluated(project, tmp_path, "pgbouncer.tf", both, BOUNCED)
    environment, secrets = json.loads(json.loads(said))

    assert not (project / "deploy/aws" / DIRECT).exists()
    url = "postgresql://app@pgbouncer.main.name:6432/orders"
    orders = {name: value for name, value in environment.items() if "_ORDERS_" in name}
    assert orders == {
        "MODULE_ORDERS_DATABASE_POOLED": "true",
        "MODULE_ORDERS_DATABASE_URL": f"{url}-app",
        "MODULE_ORDERS_DATABASE_READ_URL": f"{url}-app_read",
        "MODULE_ORDERS_DATABASE_STATEMENT_CACHE": "100",
    }
    # For migrations. One name must not be in both.
    assert secrets["MODULE_ORDERS_DATABASE_DIRECT_URL"] == "module_url orders"
    assert len(secrets) == 2
    assert secrets.keys() & environment.keys() == set()


@needs_terraform
def test_the_app_reads_from_the_replicas_of_each_module_in_use(
    render: Render, tmp_path: Path
) -> None:
    project = render({**MODULES, "replica_routing": True})
    said = evaluated(project, tmp_path, "pgbouncer.tf", "module_environment", BOUNCED)
    found = {name: one for name, one in json.loads(json.loads(said)).items() if "REPLICA" in name}
    url = "postgresql://app@pgbouncer.main.name:6432/orders-app_replica"
    assert found == {"MODULE_ORDERS_DATABASE_REPLICA_URLS": f"{url}_1,{url}_2"}


@needs_terraform
def test_with_rds_proxy_the_urls_of_a_module_s_replicas_are_a_secret(
    render: Render, tmp_path: Path
) -> None:
    said = evaluated(render(WITH_RDS_PROXY), tmp_path, DIRECT, "module_secrets")
    secrets = json.loads(json.loads(said))
    assert secrets.pop("MODULE_ORDERS_DATABASE_REPLICA_URLS") == "module_replica_urls orders"
    assert [one for one in secrets if "REPLICA" in one] == []


@needs_terraform
def test_pgbouncer_signs_in_to_each_module_with_its_own_password(
    render: Render, tmp_path: Path
) -> None:
    project = render({**MODULES, "replica_routing": True})
    found = "[local.pgbouncer_ini, local.pgbouncer_start, local.module_pgbouncer_secrets]"
    said = evaluated(project, tmp_path, "pgbouncer.tf", found, BOUNCED)
    ini, start, secrets = json.loads(json.loads(said))
    assert secrets == {
        "PASSWORD_ORDERS": "module orders",
        "PASSWORD_LONG_NAME": "module long_name",
    }
    # Runs the container's command, because only that puts the passwords into the file.
    here = tmp_path / "container"
    stub = here / "bin" / "pgbouncer"
    stub.parent.mkdir(parents=True)
    stub.write_text("#!/bin/sh\n")
    stub.chmod(0o755)
    passwords = {name: name[::-1] for name in secrets} | {"PGPASSWORD": "common"}
    subprocess.run(
        ["sh", "-euc", start.replace("/tmp/", f"{here}/")],  # noqa: S108
        env={"PATH": f"{stub.parent}:{os.environ['PATH']}", "INI": ini, **passwords},
        check=True,
    )

    parser = ConfigParser(interpolation=None, delimiters=("=",))
    parser.read(here / "pgbouncer.ini")
    databases = dict(parser["databases"])
    assert list(databases)[6:] == ["app", "app_read", "app_replica_1", "app_replica_2"]
    written = [
        ("orders", "app", "at-orders"),
        ("orders", "app_read", "at-orders"),
        ("orders", "app_replica_1", "three"),
        ("orders", "app_replica_2", "four"),
        ("long_name", "app", "at-long_name"),
        ("long_name", "app_read", "at-long_name"),
    ]
    assert list(databases)[:6] == [f"{module}-{alias}" for module, alias, _ in written]
    for module, alias, host in written:
        query = databases[alias].partition("connect_query=")[2]
        assert databases[f"{module}-{alias}"] == (
            f"host={host} port=5432 dbname={module} user=app"
            f" password={f'PASSWORD_{module.upper()}'[::-1]} connect_query={query}"
        )
    assert (here / "userlist.txt").read_text() == '"app" "common"\n'
    assert (here / "pgbouncer.ini").stat().st_mode & 0o077 == 0
    for one in passwords.values():
        assert one not in ini + start


def test_a_task_may_write_temporary_files(render: Render) -> None:
    """As in Compose and on Kubernetes: Starlette keeps an upload of more than 1 MiB in a file."""
    [made] = [
        found["app_container"]
        for text in texts(render({"stage": 1}))
        for found in parsed(text).get("locals", [])
        if "app_container" in found
    ]

    assert made["readonlyRootFilesystem"] is True
    [temporary] = made["linuxParameters"]["tmpfs"]
    assert unquoted(temporary["containerPath"]) == "/tmp"  # noqa: S108


@needs_terraform
def test_a_task_may_read_a_secret_of_which_it_names_one_key(render: Render, tmp_path: Path) -> None:
    text = (render({"stage": 1}) / "deploy/aws/service.tf").read_text()
    [named] = re.findall(r"^ +Resource = (distinct\(.*?^ +\]\))", text, re.MULTILINE | re.DOTALL)
    whole = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:"
    given = {"A": f"{whole}one-AbCdEf", "B": f"{whole}two-AbCdEf:key::", "C": f"{whole}two-AbCdEf"}
    secrets = f"  secrets = {json.dumps(given)}\n  sidecar_secrets = []\n"
    (tmp_path / "main.tf").write_text(f"locals {{\n{secrets}  named = {named}\n}}\n")

    said = terraform("console", cwd=tmp_path, typed="jsonencode(local.named)\n")

    assert json.loads(json.loads(said)) == [f"{whole}one-AbCdEf", f"{whole}two-AbCdEf"]


@needs_terraform
def test_a_pgbouncer_that_ecs_stops_lets_transactions_end_and_a_crash_is_no_clean_end(
    render: Render, tmp_path: Path
) -> None:
    said = evaluated(render({"stage": 2}), tmp_path, "pgbouncer.tf", "pgbouncer_start")
    programs, told = tmp_path / "programs", tmp_path / "told"
    programs.mkdir()
    # In Python, because a shell cannot trap the SIGINT that its parent ignores.
    stub = f"""#!{sys.executable}
import signal
signal.alarm(60)
told = open("{told}", "a", buffering=1)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT, signal.SIGTERM])
told.write("started\\n")
told.write(signal.Signals(signal.sigwait([signal.SIGINT, signal.SIGTERM])).name)
"""
    for name, text in {"pgbouncer": stub, "sleep": f"#!/bin/sh\necho $* >> {told}\n"}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    command = ["sh", "-c", json.loads(json.loads(said)).replace("/tmp/", f"{tmp_path}/")]  # noqa: S108
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "INI": "", "PGPASSWORD": "common"}
    container = subprocess.Popen(command, env=environment)
    try:
        until(lambda: told.exists() and told.read_text() == "started\n")
        container.terminate()
        assert container.wait(20) == 0
    finally:
        container.kill()

    # Until no client finds its address in DNS any more.
    assert told.read_text().split() == ["started", "5", "SIGINT"]

    (programs / "pgbouncer").write_text("#!/bin/sh\nexit 7\n")
    crashed = subprocess.run(command, env=environment, check=False)
    assert crashed.returncode == 7


def test_another_password_replaces_the_pgbouncers_that_read_it(render: Render) -> None:
    """A task reads a secret when it starts, and its ARN stays the same."""
    project = render(MODULES) / "deploy/aws"
    task = blocks((project / "pgbouncer.tf").read_text())
    [bouncer] = [body for _, kind, _, body in task if kind == "aws_ecs_task_definition"]
    lines = parsed((project / BOUNCED).read_text())["locals"][0]["module_pgbouncer_lines"]

    assert "var.database.password_version" in bouncer["container_definitions"]
    assert "var.module_database.password_version" in str(lines)


@pytest.mark.parametrize("variant", ON_AWS, ids=variant_name)
def test_a_release_is_told_the_command_that_migrates_each_database(
    render: Render, variant: dict[str, Any]
) -> None:
    project = render(variant)
    [written] = re.findall(r"^  migration +=.*", module(project), re.MULTILINE)

    own = (project / "app/infra/module_databases").exists()
    command = "python -m app.infra.module_databases.migrate" if own else "alembic upgrade head"
    assert json.loads(written.partition("=")[2]) == command.split()
    assert "    migration       = local.migration\n" in module(project)


def test_each_of_several_databases_leaves_its_own_final_snapshot(render: Render) -> None:
    project = render({"stage": 4, "module_databases": True})
    done = subprocess.run(
        [sys.executable, "-c", OVERRIDES],
        cwd=project,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )

    snapshots = {
        name: unquoted(body["final_snapshot_identifier"])
        for _, kind, name, body in blocks(done.stdout)
        if kind == "aws_db_instance"
    }
    assert snapshots == {
        "main": "shop-main-final",
        "module": 'shop-module-${replace(each.key, "_", "-")}-final',
    }


OVERRIDES = """
from dev.deploy.destroy import override, protected
print(*(override(kind, name, f"shop-{name}{key}-final") for kind, name, key in protected()))
"""


@needs_terraform
def test_pgbouncer_leads_to_each_server_by_a_name(render: Render, tmp_path: Path) -> None:
    project = render({"stage": 2, "replica_routing": True})
    said = evaluated(project, tmp_path, "pgbouncer.tf", "pgbouncer_ini")

    ini = json.loads(json.loads(said))
    assert re.findall(r"^(app\w*) = host=(\S+) port=5432 dbname=app connect_query=", ini, re.M) == [
        ("app", "main.address"),
        ("app_read", "main.address"),
        ("app_replica_1", "one"),
        ("app_replica_2", "two"),
    ]
    assert "auth_file = /tmp/userlist.txt" in ini
    original = (project / "deploy/pgbouncer.ini").read_text()
    settings = {line for line in original.splitlines() if line and line[0] not in "#"}
    # The three servers, the file of users, and the size of a pool.
    assert len(settings - set(ini.splitlines())) == 5
    assert "\ndefault_pool_size = 7\n" in ini
