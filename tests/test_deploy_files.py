"""The generated repo's files for other tools, read by those tools."""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import yaml
from people import in_locale

TEMPLATE = Path(__file__).parent.parent / "template"


def run(*command: str | Path) -> str:
    """The output of a linter, which is empty if it finds nothing."""
    result = subprocess.run(command, cwd=TEMPLATE, capture_output=True, text=True)
    return "" if result.returncode == 0 else result.stdout + result.stderr


def test_hadolint_accepts_the_dockerfile() -> None:
    assert run("hadolint", "Dockerfile") == ""


@pytest.mark.parametrize(
    ("schema", "file"),
    [
        ("vendor.github-workflows", ".github/workflows/check.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/check.yml"),
        ("vendor.github-workflows", ".github/workflows/aws.yml"),
        ("custom.github-workflows-require-timeout", ".github/workflows/aws.yml"),
        ("vendor.renovate", "renovate.json"),
    ],
)
def test_files_follow_their_schema(schema: str, file: str) -> None:
    assert run("check-jsonschema", "--builtin-schema", schema, file) == ""


def test_actionlint_accepts_the_workflows() -> None:
    assert run("actionlint", *sorted((TEMPLATE / ".github/workflows").iterdir())) == ""


def test_zizmor_finds_no_vulnerability_in_the_workflows() -> None:
    assert run("zizmor", "--offline", ".github") == ""


@pytest.mark.parametrize("page", ["template/docs/guide/aws.md", "docs/golden-path.md"])
def test_what_an_environment_of_github_holds_is_for_the_main_branch_alone(page: str) -> None:
    """A branch may change the workflow, and with it the `if` that asks for its name."""
    text = (TEMPLATE.parent / page).read_text(encoding="utf-8")
    assert re.findall(r"environment `[\w-]+`(.*?) alone", text) == [" for the branch `main`"]


def test_ci_runs_what_people_run() -> None:
    workflow = yaml.safe_load((TEMPLATE / ".github/workflows/check.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["check"]["steps"] if "run" in step]
    assert commands == ["make system-packages", "make check"]


def test_selinux_lets_a_container_read_each_file_that_it_mounts() -> None:
    files = sorted((TEMPLATE / "deploy").glob("*.yaml"))
    mounted = [line for file in files for line in re.findall(r"(?m)^ +- \./.*$", file.read_text())]
    assert len(mounted) > 5
    assert [line for line in mounted if not line.endswith(":ro,z")] == []


def test_the_devcontainer_sets_itself_up() -> None:
    container = json.loads((TEMPLATE / ".devcontainer/devcontainer.json").read_text())
    python = (TEMPLATE / ".python-version").read_text().strip()
    assert container["image"] == f"python:{python}"
    assert container["postCreateCommand"] == "make setup"
    assert container["forwardPorts"] == [8000]


def test_one_version_of_python_everywhere() -> None:
    python = (TEMPLATE / ".python-version").read_text().strip()
    stages = [
        line.split()[1]
        for line in (TEMPLATE / "Dockerfile").read_text().splitlines()
        if line.startswith("FROM")
    ]
    assert stages == [f"python:{python}-slim"] * 2


def test_env_example_points_to_the_stages_own() -> None:
    assert "deploy/env.example" in (TEMPLATE / ".env.example").read_text()


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_script_that_fetches_uv_parses(shell: str) -> None:
    assert run(shell, "-n", "dev/uv") == ""


def test_the_script_that_fetches_uv_prefers_one_that_is_there() -> None:
    command = ["sh", str(TEMPLATE / "dev/uv"), "hello"]
    assert subprocess.check_output(command, env={"UV": "/bin/echo"}, text=True) == "hello\n"


@pytest.mark.parametrize("name", ["UV_PROJECT", "UV_WORKING_DIR", "UV_WORKING_DIRECTORY"])
def test_no_variable_leads_uv_to_another_project(tmp_path: Path, name: str) -> None:
    project = '[project]\nname = "shop"\nversion = "7"\n'
    (tmp_path / "pyproject.toml").write_text(project, encoding="utf-8")
    done = subprocess.run(
        ["sh", str(TEMPLATE / "dev/uv"), "version", "--short"],
        cwd=tmp_path,
        env=os.environ | {name: "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr


@pytest.mark.parametrize("named", ["/nowhere", "a folder/uv", ""])
def test_make_finds_a_uv_at_any_path(tmp_path: Path, named: str) -> None:
    for folder in ("dev", "bin", "a folder"):
        (tmp_path / folder).mkdir()
    for name in ("dev/uv", "dev/targets.mk"):
        shutil.copy(TEMPLATE / name, tmp_path / name)
    for place in ("bin/uv", "a folder/uv"):
        (tmp_path / place).write_text(f'#!/bin/sh\necho "{place}: $*"\n', encoding="utf-8")
        (tmp_path / place).chmod(0o755)
    path = f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["make", "-f", "dev/targets.mk", "psql"],
        cwd=tmp_path,
        env=os.environ | {"UV": str(tmp_path / named) if named else "", "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    used = named if "folder" in named else "bin/uv"
    said = f"{used}: run --quiet python -m dev python -m dev.psql\n"
    assert (done.stdout, done.stderr) == (said, "")


@pytest.mark.parametrize(
    "target", ["dev", "test", "load", "stack", "migrate", "migration", "module", "psql"]
)
def test_a_kill_of_make_reaches_the_program_too(tmp_path: Path, target: str) -> None:
    for name in ("Makefile", "dev/uv", "dev/targets.mk", "dev/copies/targets.mk"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATE / name, tmp_path / name)
    uv = tmp_path / "a uv"
    uv.write_text("#!/bin/sh\necho $$\nexec sleep 60\n", encoding="utf-8")
    uv.chmod(0o755)
    with subprocess.Popen(
        ["make", target, "m=a note"],
        cwd=tmp_path,
        env=os.environ | {"UV": str(uv)},
        stdout=subprocess.PIPE,
    ) as make:
        assert make.stdout
        program = int(make.stdout.readline())
        make.terminate()
        # The program has the pipe open until it ends.
        has_ended = select.select([make.stdout], [], [], 10)[0]
        with suppress(ProcessLookupError):
            os.kill(program, signal.SIGKILL)
    assert has_ended


def test_a_python_version_without_an_end_of_line_is_read(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("3.13", encoding="utf-8")
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\n[ "$1" = run ] && echo ran\n', encoding="utf-8")  # Finds no Python.
    uv.chmod(0o755)
    command = ["sh", str(TEMPLATE / "dev/uv"), "run"]
    environment = os.environ | {"UV": str(uv)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ran\n")
    assert done.stderr == "Python 3.13 is not here: uv fetches it, once\n"


@pytest.mark.parametrize("locale", ["ko_KR.EUC-KR", "zh_TW.BIG5", "tr_TR.ISO-8859-9"])
def test_words_in_utf8_reach_python_in_a_locale_that_cannot_decode_them(
    tmp_path: Path, locale: str
) -> None:
    uv = tmp_path / "상품 é.py"
    uv.write_text(f"#!{sys.executable} -I\nimport sys\nprint(sys.argv)\n", encoding="utf-8")
    uv.chmod(0o755)
    done = subprocess.run(
        ["sh", str(TEMPLATE / "dev/uv"), "상품 é"],
        env=os.environ | in_locale(locale, tmp_path) | {"UV": str(uv)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{[str(uv), '상품 é']}\n"), done.stderr


def test_without_python_the_script_says_what_to_install(tmp_path: Path) -> None:
    command = ["/bin/sh", str(TEMPLATE / "dev/uv"), "--version"]
    environment = {"PATH": str(tmp_path), "HOME": str(tmp_path)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "Install python3 (with venv) or uv" in result.stderr


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "HOME: is not set. Set it, or put uv on PATH."),
        ({"HOME": "/dev/null"}, "Set XDG_CACHE_HOME to a folder where you may write"),
    ],
)
def test_without_a_home_the_script_says_what_to_set(
    tmp_path: Path, environment: dict[str, str], said: str
) -> None:
    for name in ("env", "mkdir", "python3", "sed"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    done = subprocess.run(
        ["/bin/sh", str(TEMPLATE / "dev/uv"), "--version"],
        env={"PATH": str(tmp_path), **environment},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in {1, 2}
    assert said in done.stderr.splitlines()[-1]


def uv_without_a_python(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`sh dev/uv run` where PATH holds no Python, and GitHub's mirror answers nothing."""
    (folder / "bin").mkdir()
    for name in ("cat", "uv"):
        (folder / "bin" / name).symlink_to(shutil.which(name) or "")
    shutil.copy(TEMPLATE / ".python-version", folder)
    return subprocess.run(
        ["/bin/sh", str(TEMPLATE / "dev/uv"), "run", "--no-project", "python", "--version"],
        cwd=folder,
        env={
            "PATH": str(folder / "bin"),
            "HOME": str(folder),
            "UV_PYTHON_INSTALL_DIR": str(folder / "pythons"),
            "UV_PYTHON_INSTALL_MIRROR": "http://127.0.0.1:1",
            "UV_HTTP_RETRIES": "0",
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_when_no_python_can_be_downloaded_the_script_says_what_to_do(tmp_path: Path) -> None:
    done = uv_without_a_python(tmp_path)
    assert done.returncode != 0
    python = (TEMPLATE / ".python-version").read_text().strip()
    assert f"Python {python} is not here: uv fetches it, once" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    advice = done.stderr.partition(f"There is no Python {python}, ")[2].splitlines()
    assert advice[2:] == [
        f"  Install Python {python}, so that PATH has python{python}.",
        f"  Name one that you have: export UV_PYTHON=/path/to/python{python}",
        "  Name a mirror of GitHub's: export UV_PYTHON_INSTALL_MIRROR=https://...",
    ]
    assert max(map(len, advice)) <= 80


def test_a_python_named_by_uv_python_is_used_without_output(tmp_path: Path) -> None:
    done = uv_without_a_python(tmp_path, UV_PYTHON=sys.executable)
    python = (TEMPLATE / ".python-version").read_text().strip()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Python {python}.")


@pytest.mark.parametrize("named", ["this Python", "/nowhere/python", "3.13", ""])
def test_make_new_uses_uv_python_only_for_the_projects_version_of_python(
    tmp_path: Path, named: str
) -> None:
    named = named.replace("this Python", sys.executable)
    uv = tmp_path / "uv"
    uv.write_text('#!/bin/sh\necho "$UV_PYTHON"\n')
    uv.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "UV_PYTHON": named}
    done = subprocess.run(
        ["make", "--silent", "new", "DEST=shop"],
        cwd=TEMPLATE.parent,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    python = (TEMPLATE / ".python-version").read_text().strip()
    assert done.stdout == f"{sys.executable if named == sys.executable else python}\n"
    wrong = f"UV_PYTHON is not used: {named} is no Python {python}, or does not run\n"
    assert done.stderr.partition(": ")[2] == (wrong if named == "/nowhere/python" else "")


@pytest.mark.parametrize(
    ("folder", "typed", "said"),
    [
        (TEMPLATE.parent, ["new", "DEST=shop"], 'rung new "shop"'),
        (TEMPLATE.parent, ["new", "DEST=shop", "STAGE=2"], 'rung new "shop" --stage "2"'),
        (TEMPLATE, ["module"], 'python -m dev.module ""'),
        (TEMPLATE, ["module", "NAME=news"], 'python -m dev.module "news"'),
        (TEMPLATE, ["module", "NAME=news", "MODEL=Item"], 'python -m dev.module "news" "Item"'),
    ],
)
def test_make_takes_no_answer_from_the_shells_variables(
    folder: Path, typed: list[str], said: str
) -> None:
    """WSL sets NAME, tools for deployments STAGE, and tools for language models MODEL."""
    environment = os.environ | {"NAME": "laptop", "MODEL": "large-5", "STAGE": "dev"}
    done = subprocess.run(
        ["make", "--dry-run", *typed],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.rstrip().endswith(said)


def healthcheck() -> list[str]:
    """The command of the image's HEALTHCHECK, run by this Python."""
    dockerfile = (TEMPLATE / "Dockerfile").read_text()
    _, command = dockerfile.partition("HEALTHCHECK")[2].split("CMD ", 1)
    program, *arguments = json.loads(command.splitlines()[0])
    assert program == "python"
    return [sys.executable, *arguments]


@pytest.mark.parametrize("proxy", ["http_proxy", "HTTP_PROXY", "all_proxy"])
@pytest.mark.parametrize(("path", "code"), [("/live", 0), ("/gone", 1)])
def test_the_healthcheck_of_the_image_asks_the_app_and_no_proxy(
    proxy: str, path: str, code: int
) -> None:
    class App(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == path else 503)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), App) as app:
        Thread(target=app.serve_forever, daemon=True).start()
        environment = {"PORT": str(app.server_port), proxy: "http://127.0.0.1:9"}
        checked = subprocess.run(healthcheck(), env=environment, capture_output=True, check=False)
        app.shutdown()

    assert checked.returncode == code, checked.stderr
