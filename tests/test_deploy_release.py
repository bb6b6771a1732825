"""`make deploy` of the generated repo, against moto and a truthful stub of ECS."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session
from conftest import Render
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from moto.server import ThreadedMotoServer
from people import git
from releasing import ACCOUNT, Cloud, Served, revision

pytestmark = pytest.mark.slow

REGION = "eu-central-1"
BUCKET = f"shop-production-state-{ACCOUNT}"

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture(scope="module")
def client(moto: str) -> Callable[..., Any]:
    def made(service: str, region: str = REGION) -> Any:
        return Session().create_client(
            service,
            region_name=region,
            endpoint_url=moto,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
        )

    return made


@pytest.fixture(scope="module")
def certificate(client: Callable[..., Any]) -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop.example.com")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=9))
    ).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, plain)
    imported = client("acm").import_certificate(
        Certificate=signed.public_bytes(pem), PrivateKey=private
    )
    return str(imported["CertificateArn"])


class Production:
    """A repo of stage 1 and its production."""

    def __init__(self, repo: Path, cloud: Cloud, environment: dict[str, str]) -> None:
        self.repo, self.cloud, self.environment = repo, cloud, environment
        self.main = repo / "environments" / "production" / "main.tf"

    def changed(self, old: str, new: str) -> None:
        assert old in self.main.read_text()
        self.main.write_text(self.main.read_text().replace(old, new))
        git("commit", "-qam", "change", cwd=self.repo)

    def make(
        self, command: str = "deploy", typed: str = "", **given: str
    ) -> subprocess.CompletedProcess[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "dev.deploy", command],
            cwd=self.repo,
            env=self.environment | given,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.cloud.pid = process.pid
        said, failed = process.communicate(typed, timeout=120)
        return subprocess.CompletedProcess(command, process.returncode, said, failed)

    def released(self, command: str = "deploy", **given: str) -> str:
        done = self.make(command, **given)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def refused(self, command: str = "deploy", **given: str) -> str:
        done = self.make(command, **given)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stderr


@pytest.fixture
def production(
    render: Render,
    tmp_path: Path,
    moto: str,
    certificate: str,
    client: Callable[..., Any],
) -> Iterator[Production]:
    s3 = client("s3")
    for bucket in s3.list_buckets()["Buckets"]:
        for version in s3.list_object_versions(Bucket=bucket["Name"]).get("Versions", []):
            s3.delete_object(
                Bucket=bucket["Name"], Key=version["Key"], VersionId=version["VersionId"]
            )
        s3.delete_bucket(Bucket=bucket["Name"])
    rendered, repo = render({"stage": 1}), tmp_path / "shop"
    for part in (
        ".gitignore",
        "app/__init__.py",
        "app/infra/__init__.py",
        "app/infra/commands.py",
        "dev/__init__.py",
        "dev/deploy",
        "deploy",
        "environments",
    ):
        (repo / part).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (rendered / part).is_dir() else shutil.copy
        copy(rendered / part, repo / part)
    git("init", "-q", cwd=repo)
    git("add", "--all", cwd=repo)
    git("commit", "-qm", "first", cwd=repo)
    with Served(Cloud(), tmp_path / "programs") as served:
        endpoints = {f"AWS_ENDPOINT_URL_{one}": served.url for one in ("ECS", "ECR")}
        environment = os.environ | KEYS | endpoints | {"AWS_ENDPOINT_URL": moto}
        environment["PATH"] = f"{tmp_path / 'programs'}:{os.environ['PATH']}"
        environment |= {"ENV": "production", "AWS_EC2_METADATA_DISABLED": "true"}
        made = Production(repo, served.cloud, environment)
        made.changed(f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/yours", certificate)
        yield made


def in_order(events: list[str], *wanted: str) -> bool:
    places = [events.index(one) for one in wanted]
    return places == sorted(places)


def test_a_release_migrates_with_the_new_revision_before_it_rolls(
    production: Production, client: Callable[..., Any]
) -> None:
    said = production.released()

    cloud = production.cloud
    commit = git("rev-parse", "HEAD", cwd=production.repo).strip()
    assert cloud.revisions == [f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/shop-production:{commit}"]
    steps = ["terraform init", "terraform plan", "terraform show", "terraform apply"]
    steps += ("docker build", "docker login", "docker push", "RunTask", "UpdateService")
    assert in_order(cloud.events, *steps)
    assert cloud.service()["deployments"][0]["runningCount"] == 2
    assert "shop-production:1 is in service at lb.example.com" in said
    s3 = client("s3")
    assert s3.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    assert s3.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
    public = s3.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert all(public.values())


def test_the_same_commit_is_not_built_again_and_the_next_commit_is_rolled(
    production: Production,
) -> None:
    production.released()
    # The first `terraform init` writes it.
    (production.main.parent / ".terraform.lock.hcl").write_text("# locked\n")
    production.cloud.events.clear()

    production.released()

    assert "docker build" not in production.cloud.events
    assert len(production.cloud.revisions) == 1
    production.changed("  image  ", '  architecture = "X86_64"\n  image  ')
    production.released()
    assert production.cloud.succeeded == [revision(1), revision(2)]
    assert production.cloud.platforms == ["--platform=linux/arm64", "--platform=linux/amd64"]


def test_a_migration_that_fails_stops_the_release(
    production: Production, client: Callable[..., Any]
) -> None:
    production.cloud.exit_code = 1
    logs = client("logs")
    logs.create_log_group(logGroupName="/app")
    logs.create_log_stream(logGroupName="/app", logStreamName="app/app/0")
    logs.put_log_events(
        logGroupName="/app",
        logStreamName="app/app/0",
        logEvents=[
            {"timestamp": int(datetime.now(UTC).timestamp() * 1000), "message": "no such table"}
        ],
    )

    refused = production.refused()

    assert "UpdateService" not in production.cloud.events
    assert "no such table" in refused
    assert "The migration failed: exit code 1" in refused
    assert "No copy has the new revision" in refused


def test_the_databases_of_modules_are_migrated_before_the_roll_too(production: Production) -> None:
    # The stub checks that the task's command is the one of the module's output.
    production.cloud.migration = ["python", "-m", "app.infra.module_databases.migrate"]
    production.released()
    assert in_order(production.cloud.events, "RunTask", "UpdateService")

    production.cloud.exit_code, production.cloud.events[:] = 1, []
    production.changed("  image  ", '  architecture = "X86_64"\n  image  ')
    assert "No copy has the new revision" in production.refused()
    assert "RunTask" in production.cloud.events
    assert "UpdateService" not in production.cloud.events


def test_a_service_that_was_rolled_back_is_a_failed_release(production: Production) -> None:
    production.released()
    production.cloud.healthy = False
    production.changed("production.tfstate", "other.tfstate")

    refused = production.refused()

    assert "ECS went back to shop-production:1: the new revision is not in service" in refused
    assert "ECS deployment circuit breaker: tasks failed to start." in refused
    assert "Essential container in task exited, app ended with 3" in refused


def test_a_first_release_that_does_not_start_is_a_failed_release(production: Production) -> None:
    production.cloud.healthy = False

    assert "The rollout failed." in production.refused()

    production.cloud.healthy = True
    production.changed("production.tfstate", "other.tfstate")
    production.released()


def test_a_rollback_takes_the_release_before_or_the_one_that_is_named(
    production: Production,
) -> None:
    production.released()
    production.changed("production.tfstate", "other.tfstate")
    production.released()

    assert "shop-production:1 is in service" in production.released("rollback")
    assert "shop-production:2 is in service" in production.released("rollback", TO="2")
    assert production.cloud.events.count("RunTask") == 2  # A rollback runs no migration.


STEPS = ["terraform init", "terraform apply", "docker push", "RunTask", "UpdateService"]


@pytest.mark.parametrize("step", STEPS)
def test_a_release_killed_at_any_step_goes_on_with_the_same_command(
    production: Production, step: str
) -> None:
    production.cloud.kill_at = step
    assert production.make().returncode == -signal.SIGKILL

    production.released()

    cloud = production.cloud
    assert cloud.service()["deployments"][0]["runningCount"] == 2
    assert cloud.deployments[0]["taskDefinition"] == revision(1)
    # The migration that runs is waited for, also when nobody watched it start.
    finished = 1 if step == "UpdateService" else 0
    assert cloud.events.count("RunTask") == 1 + finished


def test_ctrl_c_lets_terraform_save_its_state(production: Production) -> None:
    production.cloud.kill_at, production.cloud.kill_with = "terraform apply", signal.SIGINT

    stopped = production.make()

    assert stopped.returncode == 130
    assert stopped.stderr == "\nStopped. The same command continues from here.\n"
    assert production.cloud.events[-1] == "terraform has ended"
    production.released()


def make_bucket(client: Callable[..., Any]) -> None:
    place = {"LocationConstraint": REGION}
    client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)


def nothing_was_made(production: Production, client: Callable[..., Any]) -> bool:
    reads = {"DescribeImages"}
    return set(production.cloud.events) <= reads and not client("s3").list_buckets()["Buckets"]


BAD: dict[str, tuple[str, str, str]] = {
    "region": (f'region = "{REGION}"', 'region = "eu-central-9"', "AWS has no region eu-central-9"),
    "name": ('"shop"', '"a-shop-with-a-long-name"', "has 34 characters, and may have 31"),
    "computed": ('"shop"', "var.image", "Write name as plain text"),
    "account": (ACCOUNT, "999999999999", "is of account 999999999999, you are in 123456789012"),
    "certificate": ("certificate/", "certificate/0", "There is no certificate arn:aws:acm"),
    "unfilled": ("arn:aws:acm:", "", "is not a certificate of ACM"),
    "elsewhere": (f"acm:{REGION}", "acm:us-east-1", "is of us-east-1, and the service of eu-ce"),
    "processor": ("image  ", 'architecture = "arm"\n  image  ', "architecture is ARM64 or X86_64"),
    "syntax": ("module", "module {", "is not valid Terraform"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_main_tf_is_one_line_and_nothing_is_made(
    production: Production, client: Callable[..., Any], case: str
) -> None:
    old, new, said = BAD[case]
    production.changed(old, new)

    refused = production.refused()

    assert said in refused
    assert refused.count("\n") == 1
    assert nothing_was_made(production, client)


# In one process, because each would import botocore again.
REFUSALS = """
import json, sys
from dev.deploy.__main__ import run
from dev.deploy.programs import Stop

said = {}
for command in sys.argv[1:]:
    try:
        run(command)
    except Stop as stop:
        said[command] = str(stop)
print()  # The question of destroy ends without a line.
print(json.dumps(said))
"""
ALL = ("deploy", "plan", "rollback", "console", "destroy")
SIGN_IN = "Sign in to AWS (AWS_PROFILE, or the role of your CI), then run the same command again."

# The environment, the commands, and the line that each of them prints.
REFUSED: dict[str, tuple[dict[str, str], tuple[str, ...], str]] = {
    "no credentials": (
        dict.fromkeys(KEYS, ""),
        ALL,
        f"There are no credentials for AWS. {SIGN_IN}",
    ),
    "half of the credentials": (
        {"AWS_SECRET_ACCESS_KEY": ""},
        ALL,
        "AWS could not be asked: Partial credentials found in env, missing: "
        f"AWS_SECRET_ACCESS_KEY. {SIGN_IN}",
    ),
    "an unknown profile": (
        {"AWS_PROFILE": "nobody"},
        ALL,
        f"AWS could not be asked: The config profile (nobody) could not be found. {SIGN_IN}",
    ),
    "an expired token": (
        {"AWS_ENDPOINT_URL_STS": "{stub}/expired"},
        ALL,
        f"AWS does not accept your credentials: The security token is expired. {SIGN_IN}",
    ),
    "no network": (
        {"AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1"},
        ALL,
        'AWS cannot be reached: Could not connect to the endpoint URL: "http://127.0.0.1:1/". '
        "Check your network (VPN, HTTPS_PROXY), then run the same command again.",
    ),
    "no Terraform": (
        {"PATH": "/nowhere"},
        ALL,
        "Terraform is not installed, or not on your PATH. Install 1.11 or newer.",
    ),
    "an old Terraform": (
        {"TERRAFORM": "1.9.8"},
        ALL,
        "Terraform 1.9.8 is too old. Install 1.11 or newer.",
    ),
    "nothing released": (
        {},
        ("rollback", "console", "destroy"),
        f"shop-production was never released: there is no bucket {BUCKET} with its state. "
        "Run `make deploy ENV=production` first.",
    ),
    "no number": (
        {"TO": "latest"},
        ("rollback",),
        "TO is the number of a revision: make rollback TO=41",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_each_command_refuses_in_one_line_and_makes_nothing(
    production: Production, client: Callable[..., Any], case: str
) -> None:
    given, commands, said = REFUSED[case]
    stub = production.environment["AWS_ENDPOINT_URL_ECS"]
    production.cloud.terraform = given.get("TERRAFORM", production.cloud.terraform)

    done = subprocess.run(
        [sys.executable, "-c", REFUSALS, *commands],
        cwd=production.repo,
        env=production.environment | {name: text.format(stub=stub) for name, text in given.items()},
        input="shop-production\n",  # destroy asks for it.
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == dict.fromkeys(commands, said)
    assert nothing_was_made(production, client)


def test_without_credentials_it_fails_in_one_line(production: Production) -> None:
    for key in KEYS:
        del production.environment[key]

    refused = production.refused()

    assert refused == f"There are no credentials for AWS. {SIGN_IN}\n"


def test_without_a_builder_nothing_is_made(
    production: Production, client: Callable[..., Any], tmp_path: Path
) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for program in ("git", "terraform"):
        found = shutil.which(program, path=production.environment["PATH"])
        assert found
        (few / program).symlink_to(found)

    refused = production.refused(PATH=str(few))

    assert refused.startswith("Neither Docker nor buildah is there.")
    assert refused.count("\n") == 1
    assert nothing_was_made(production, client)


def test_a_dirty_tree_is_not_released(production: Production, client: Callable[..., Any]) -> None:
    (production.repo / "app" / "new.py").touch()

    refused = production.refused()

    assert refused == "The working tree has changes (app/new.py). Commit or stash them.\n"
    assert nothing_was_made(production, client)


@pytest.mark.parametrize("command", ["deploy", "plan", "destroy"])
def test_a_locked_state_is_not_planned(
    production: Production, client: Callable[..., Any], command: str
) -> None:
    make_bucket(client)
    held = '{"ID": "7f-1", "Who": "ada@laptop", "Created": "2026-11-26T07:00:00.123Z"}'
    client("s3").put_object(Bucket=BUCKET, Key="production.tfstate.tflock", Body=held)

    refused = production.refused(command, typed="shop-production\n")

    assert refused.startswith("ada@laptop locked the state at 2026-11-26T07:00:00. Wait")
    assert "terraform -chdir=environments/production force-unlock 7f-1" in refused
    assert production.cloud.events == []


def test_a_plan_that_loses_data_stops_the_release(production: Production) -> None:
    lost = {"address": "aws_db_instance.main", "type": "aws_db_instance", "name": "main"}
    production.cloud.plan = {"resource_changes": [lost | {"change": {"actions": ["delete"]}}]}

    assert "aws_db_instance.main holds rows" in production.refused()
    assert "terraform apply" not in production.cloud.events


def test_an_environment_is_destroyed_only_by_its_name(production: Production) -> None:
    assert "Nothing was destroyed" in production.refused("destroy")
    assert production.cloud.events == []


def test_typing_the_name_destroys_the_environment_and_its_protection(
    production: Production, client: Callable[..., Any]
) -> None:
    make_bucket(client)
    said = production.released("destroy", typed="shop-production\n")

    cloud = production.cloud
    assert in_order(cloud.events, "terraform state", "terraform apply", "terraform destroy")
    [applied] = cloud.applied
    # Only of existing resources. For a folder of files, Terraform has the only protection.
    assert [one for one in applied if one.startswith("-target=")] == [
        f"-target=module.service.{one}"
        for one in ("aws_db_instance.main", "aws_lb.main", "aws_ecr_repository.app")
    ]
    assert "deletion_protection = false" in cloud.unprotected
    assert cloud.unprotected.count("prevent_destroy = false") == 6
    assert "shop-production is destroyed" in said
    # The next release is of a clean tree.
    assert git("status", "--porcelain", cwd=production.repo) == ""


def test_each_destroy_names_its_final_snapshot_by_the_time(
    production: Production, client: Callable[..., Any]
) -> None:
    make_bucket(client)
    began = datetime.now(UTC).replace(microsecond=0)

    production.released("destroy", typed="shop-production\n")

    [name] = re.findall('final_snapshot_identifier = "(.*)"', production.cloud.unprotected)
    assert name.startswith("shop-production-main-final-")
    named = datetime.strptime(f"{name[-15:]}Z", "%Y%m%d-%H%M%S%z")
    assert began <= named <= datetime.now(UTC)


def console_of(production: Production) -> tuple[dict[str, Any], dict[str, Any]]:
    [definition] = production.cloud.definitions.values()
    [task] = [one for one in production.cloud.tasks.values() if one["startedBy"] == "console"]
    return definition, task


def test_a_console_is_a_shell_in_a_task_that_ends_with_the_shell(production: Production) -> None:
    production.released()
    copies = production.cloud.service()

    production.released("console")

    definition, task = console_of(production)
    [[session, region, action, _, target, endpoint]] = production.cloud.shells
    assert json.loads(session)["tokenValue"] == "token"
    assert (region, action) == (REGION, "StartSession")
    name = task["taskArn"].rpartition("/")[2]
    assert json.loads(target) == {"Target": f"ecs:shop-production_{name}_7f-app"}
    assert endpoint.startswith("http")
    [app] = definition["containerDefinitions"]
    assert app["image"] == production.cloud.revisions[0]
    assert definition["taskRoleArn"].endswith("role/app")
    assert (task["lastStatus"], definition["status"]) == ("STOPPED", "INACTIVE")
    assert production.cloud.service() == copies


def test_ctrl_c_while_a_console_starts_leaves_no_task(production: Production) -> None:
    production.released()
    production.cloud.kill_at, production.cloud.kill_with = "DescribeTasks", signal.SIGINT

    assert production.make("console").returncode == 130

    definition, task = console_of(production)
    assert production.cloud.shells == []
    assert (task["lastStatus"], definition["status"]) == ("STOPPED", "INACTIVE")


def test_a_console_that_does_not_start_says_why(production: Production) -> None:
    production.released()
    production.cloud.stops = "CannotPullContainerError: not found"

    refused = production.refused("console")

    assert refused == (
        "The task stopped: CannotPullContainerError: not found. "
        "Correct this, then run the same command again.\n"
    )
    assert console_of(production)[0]["status"] == "INACTIVE"
